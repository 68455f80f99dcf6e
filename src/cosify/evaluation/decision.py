"""What a rejector says: of one image, of a list of them, and of the rows of a tensor."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

SHOWN = 10  # decisions of a list that its repr spells out


@dataclass(frozen=True)
class Decision:
    """What a rejector says of one image; `label, score, accept = decision` works too.

    Attributes:
        name: of the class.
        label: index of the class of the largest logit.
        score: larger for more confident samples; of `msp` the log of the largest probability.
        accept: whether the score reaches the threshold.
        threshold: least score that is accepted.
    """

    name: str
    label: int
    score: float
    accept: bool
    threshold: float

    def __iter__(self) -> Iterator[int | float | bool]:
        return iter((self.label, self.score, self.accept))

    def __repr__(self) -> str:
        verdict = "accepted" if self.accept else "rejected"
        return f"{self.name!r} (class {self.label}): {verdict}, score {self.score:.4g}, threshold {self.threshold:.4g}"


class Decisions(list[Decision]):
    """What a rejector says of a list of images, in their order; `label`, `score` and `accept` are its columns."""

    @property
    def label(self) -> Tensor:
        """Class of the largest logit, [B]."""
        return torch.tensor([each.label for each in self])

    @property
    def score(self) -> Tensor:
        """Confidence, [B], float64."""
        return torch.tensor([each.score for each in self], dtype=torch.float64)

    @property
    def accept(self) -> Tensor:
        """Whether the score reaches the threshold, [B]."""
        return torch.tensor([each.accept for each in self])

    def __repr__(self) -> str:
        lines = [f"{place}: {each!r}" for place, each in enumerate(self[:SHOWN])]
        lines += [f"... and {len(self) - SHOWN} more"] if len(self) > SHOWN else []
        return "\n".join([f"{sum(each.accept for each in self)} of {len(self)} accepted", *lines])


class DecisionBatch(NamedTuple):
    """What a rejector says of the B rows of a tensor.

    Attributes:
        label: [B], class of the largest logit.
        score: [B], float64, larger for more confident samples.
        accept: [B], whether the score reaches the threshold.
    """

    label: Tensor
    score: Tensor
    accept: Tensor

    def __repr__(self) -> str:
        return f"{int(self.accept.sum())} of {len(self.accept)} accepted, in tensors label, score, accept"
