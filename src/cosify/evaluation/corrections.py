"""Accuracy on long-tailed classes from a feature cache: as the model is, and corrected after training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cosify.evaluation.feature_cache import FeatureCache
from cosify.evaluation.long_tail import long_tail_accuracy
from cosify.evaluation.rows import to_tensor
from cosify.evaluation.tau_normalization import tau_normalized
from cosify.functional.prior import adjust_logits

UNEVEN = 2  # times as many training images in the largest class as in the smallest


@dataclass(frozen=True)
class GroupAccuracy:
    """Accuracy by the number of training images; shares, None for a group without classes.

    Attributes:
        accuracy: over all test images.
        mean_per_class: mean of the classes' accuracies.
        many: mean over the classes with more than 100 training images.
        medium: over those with 20 to 100.
        few: over those with fewer than 20.
        num_classes: in each of the three groups.
    """

    accuracy: float
    mean_per_class: float
    many: float | None
    medium: float | None
    few: float | None
    num_classes: tuple[int, int, int]


def is_uneven(train_counts: Tensor) -> bool:
    """Return whether the largest class has at least twice the training images of the smallest."""
    return int(train_counts.max()) >= UNEVEN * int(train_counts.min())


def group_accuracies(test: FeatureCache, train_counts: Tensor) -> Mapping[str, GroupAccuracy]:
    """Measure a model, and what it becomes by the corrections that need no training.

    Args:
        test: cache of the test split.
        train_counts: [C], training images of each class.

    Returns:
        By correction: none; `"logits adjusted"` by the training prior, where every class has training images and
        logits follow from embeddings; and `"tau = 1"`, weights of one norm, for a softmax head.
    """
    predictions = {"none": to_tensor(test.predictions)}
    if test.info.output_is_classifier:
        if bool((train_counts > 0).all()):
            adjusted = [adjust_logits(logits, train_counts).argmax(dim=1) for logits in test.logits()]
            predictions["logits adjusted"] = torch.cat(adjusted)
        if test.info.kappa is None:
            weight = tau_normalized(test.weight, 1.0)
            predictions["tau = 1"] = torch.cat([F.linear(rows, weight).argmax(dim=1) for rows in test.blocks()])
    labels = to_tensor(test.labels)
    return {name: group_accuracy(predicted, labels, train_counts) for name, predicted in predictions.items()}


def group_accuracy(predictions: Tensor, labels: Tensor, train_counts: Tensor) -> GroupAccuracy:
    """Return what `long_tail_accuracy` finds, ready for JSON, which has no NaN; arguments and errors as there."""
    found = long_tail_accuracy(predictions, labels, train_counts)
    return GroupAccuracy(
        accuracy=found.accuracy,
        mean_per_class=found.mean_per_class,
        many=_or_none(found.many),
        medium=_or_none(found.medium),
        few=_or_none(found.few),
        num_classes=found.num_classes,
    )


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
