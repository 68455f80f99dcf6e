"""What a kappa policy is: the rule by which a head gets kappa from a batch, without labels."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cosify.functional import expected_kappa
from cosify.functional.fusion import fused
from cosify.functional.search import Scan, SoftmaxState


@dataclass(frozen=True)
class Geometry:
    """What a policy reads of one batch; nothing here carries a gradient."""

    scan: Scan  # embeddings and classes; its blocks leave out a labelled class, its methods do not
    num_classes: int  # C; of a class-parallel head over all ranks
    kappa: Tensor  # scalar, the head's running kappa
    last_kappa: Tensor  # [.], of the batch before, or the start
    counted: Tensor | None = None  # [B] bool, samples that count in a statistic of the whole batch; None: all


@dataclass(frozen=True)
class Estimate:
    """What a policy finds."""

    kappa: Tensor  # scalar, [1] or [B]
    softmax: SoftmaxState | None = None  # at kappa, n = 1, if the search for kappa has computed it


class KappaPolicy:
    """Base of the policies; each overrides what it needs.

    A policy is stateless: the running kappa and a trainable `log_kappa` live in the head.
    """

    min_classes: ClassVar[int] = 2
    trainable: ClassVar[bool] = False  # kappa = exp(head.log_kappa), learnt by back-propagation
    constant: ClassVar[bool] = False  # kappa follows from the settings; a checkpoint does not change it
    searches_grid: ClassVar[bool] = False  # kappa is a candidate of Eq. (14), whose ends may hold it back
    momentum: ClassVar[float] = 0.01  # share of a new batch in the running kappa

    def start(self, num_classes: int) -> float:
        """Return kappa before the first training batch."""
        return expected_kappa(num_classes)

    @property
    def estimates(self) -> bool:
        """Whether kappa follows from each batch."""
        return not (self.trainable or self.constant)

    def estimate(self, geometry: Geometry) -> Estimate:
        """Return kappa of this batch."""
        raise NotImplementedError(f"{type(self).__name__} says how kappa starts, not how it follows from a batch")


@fused
def mean_of_counted(values: Tensor, counted: Tensor | None) -> Tensor:
    """Return the mean of the samples that count, a scalar; NaN if none does.

    Args:
        values: [B], or [1] for all samples; what does not count may be anything.
        counted: [B] bool; None: all.
    """
    if counted is None:
        return values.mean()
    if len(values) == 1:  # as it is: a sum of equal numbers would be rounded
        return torch.where(counted.any(), values[0], torch.nan)
    return torch.where(counted, values, 0.0).sum() / counted.sum()
