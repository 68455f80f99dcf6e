"""What a kappa policy is: the rule by which a head gets kappa from a batch, without labels."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cosify.functional import expected_kappa


@dataclass(frozen=True)
class Geometry:
    """What the head computed of one batch, for the policy to read; nothing here carries a gradient."""

    unit_embedding: Tensor  # [B, d]
    prototypes: Tensor  # [C, d]
    cosine: Tensor  # [B, C]
    kappa: Tensor  # scalar, the head's running kappa


class KappaPolicy:
    """Base of the policies; each overrides what it needs.

    A policy is stateless: the running kappa and a trainable `log_kappa` live in the head.
    """

    min_classes: ClassVar[int] = 2
    trainable: ClassVar[bool] = False  # kappa = exp(head.log_kappa), learnt by back-propagation
    constant: ClassVar[bool] = False  # kappa follows from the settings; a checkpoint does not change it
    momentum: ClassVar[float] = 0.01  # share of a new batch in the running kappa

    def start(self, num_classes: int) -> float:
        """Return kappa before the first training batch."""
        return expected_kappa(num_classes)

    def estimate(self, geometry: Geometry) -> Tensor | None:
        """Return kappa of this batch, scalar or [B], or None where kappa does not depend on the batch."""
        return None
