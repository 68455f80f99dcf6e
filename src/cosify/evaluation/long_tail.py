"""Long-tailed data: accuracy of classes with many, medium and few training images, and the correction by the prior."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from cosify.errors import InputError

MANY, FEW = 100, 20  # training images of a class
Thresholds = Literal["kang", "oltr"]


@dataclass(frozen=True)
class LongTailAccuracy:
    """Accuracies by the number of training images; shares, NaN for a group without a class or without test images.

    Attributes:
        accuracy: over all test images.
        mean_per_class: mean of the classes' accuracies, over those with test images.
        many: mean over the classes with many training images.
        medium: likewise.
        few: likewise.
        num_classes: in each of the three groups, with test images.
        by_class: [C], NaN for a class without test images.
    """

    accuracy: float
    mean_per_class: float
    many: float
    medium: float
    few: float
    num_classes: tuple[int, int, int]
    by_class: tuple[float, ...]

    def __repr__(self) -> str:
        groups = zip(("many", "medium", "few"), (self.many, self.medium, self.few), self.num_classes, strict=True)
        parts = [f"{name} {_percent(value)} of {num} classes" for name, value, num in groups]
        return f"LongTailAccuracy({self.accuracy:.2%}, per class {_percent(self.mean_per_class)}; {', '.join(parts)})"


def long_tail_accuracy(
    predictions: Tensor, labels: Tensor, train_counts: Tensor, *, thresholds: Thresholds = "kang"
) -> LongTailAccuracy:
    """Measure predictions by the size of their class in training.

    Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020.  Deviation: an empty
    group is NaN, where their code returns 0.

    Args:
        predictions: [N], class indices.
        labels: [N], in [0, C).
        train_counts: [C], training images of each class.
        thresholds: `"kang"`, many above 100 and few below 20, or `"oltr"` (Liu et al. 2019), many from 100 on and few
            up to 20.

    Raises:
        ValueError: if there are no labels, shapes differ, or labels are out of range.
    """
    if predictions.shape != labels.shape or labels.ndim != 1 or len(labels) == 0:
        raise InputError(
            f"predictions have shape {list(predictions.shape)} and labels {list(labels.shape)}, expected [N] both, at"
            " least one"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= len(train_counts):
        raise InputError(
            f"labels go from {int(labels.min())} to {int(labels.max())} with {len(train_counts)} training counts,"
            " expected 0 to C-1; give the count of every class"
        )
    right = (predictions == labels).double()
    num = labels.bincount(minlength=len(train_counts))
    by_class = labels.bincount(right, minlength=len(train_counts)) / num  # 0 / 0 is NaN
    many, few = (train_counts > MANY, train_counts < FEW)
    if thresholds == "oltr":
        many, few = (train_counts >= MANY, train_counts <= FEW)
    tested = num > 0
    groups = [group & tested for group in (many, ~many & ~few, few)]
    means = [_mean(by_class[group]) for group in groups]
    return LongTailAccuracy(
        accuracy=float(right.mean()),
        mean_per_class=_mean(by_class[tested]),
        many=means[0],
        medium=means[1],
        few=means[2],
        num_classes=(int(groups[0].sum()), int(groups[1].sum()), int(groups[2].sum())),
        by_class=tuple(by_class.tolist()),
    )


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) > 0 else math.nan


def _percent(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.2%}"
