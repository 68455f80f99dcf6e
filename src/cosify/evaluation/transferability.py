"""Transfer to another task (Table 4): linear probe and nearest neighbours on the frozen features of a cache."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cosify.data import TEST_SHARE, held_out_mask
from cosify.errors import InputError
from cosify.evaluation.feature_cache import FeatureCache
from cosify.evaluation.logistic_probe import LAMBDAS, ProbeResult, linear_probe
from cosify.evaluation.rows import to_tensor

logger = logging.getLogger("cosify")

NEIGHBOURS = 5
LEAST = 20  # images, so that the training part, its held-out part and the test part have some
FAR = 0.05  # a probe behind nearest neighbours by more than this, and three standard errors, is doubted


@dataclass(frozen=True)
class Transfer:
    """How well frozen features serve another task.

    Attributes:
        probe: logistic regression on standardised features.
        knn_top1: top-1 accuracy of the 5 nearest training samples by cosine, in [0, 1].
        standard_error: of the probe's top-1 accuracy p, sqrt(p (1 - p) / N).
        protocol: how the samples were divided.
    """

    probe: ProbeResult
    knn_top1: float
    standard_error: float
    protocol: str


def transfer(cache: FeatureCache, *, seed: int = 0, lambdas: Sequence[float] = LAMBDAS) -> Transfer:
    """Measure how well features serve another task: a fifth of each class tests, the rest trains.

    Args:
        cache: of one split of that task; classes that do not occur are dropped.
        seed: of the choice of the fifth, and of the part that chooses lambda.
        lambdas: those that `linear_probe` tries.

    Raises:
        ValueError: if there are too few samples or classes.
    """
    check_task(cache.labels)
    classes, labels = to_tensor(cache.labels).unique(return_inverse=True)
    test = held_out_mask(labels, TEST_SHARE, seed)
    features = to_tensor(cache.embedding)
    probe = linear_probe(
        features[~test],
        labels[~test],
        features[test],
        labels[test],
        num_classes=len(classes),
        seed=seed + 1,
        lambdas=lambdas,
    )
    neighbours = knn_top1(features[~test], labels[~test], features[test], labels[test])
    error = standard_error(probe.top1, probe.num_test)
    if neighbours - probe.top1 > max(FAR, 3 * error):
        logger.warning(
            "the linear probe has %.1f %%, far below the %.1f %% of %d nearest neighbours: look at its path of lambdas"
            " and at whether it converged",
            100 * probe.top1,
            100 * neighbours,
            NEIGHBOURS,
        )
    return Transfer(
        probe=probe,
        knn_top1=neighbours,
        standard_error=error,
        protocol=f"a fifth of each class tests ({probe.num_test} of {len(labels)} images, seed {seed}), features"
        " standardised",
    )


def check_task(labels: NDArray[Any]) -> None:
    """Raise a ValueError unless labels [N] are of at least two classes and enough samples for a probe."""
    num_classes = len(np.unique(labels))
    if num_classes < 2 or len(labels) < LEAST:
        raise InputError(
            f"the task has {len(labels)} images of {num_classes} classes, expected at least {LEAST} of two or more;"
            " give a labelled set"
        )


def standard_error(accuracy: float, num: int) -> float:
    """Return the standard error of an accuracy p in [0, 1] on N = `num` samples, sqrt(p (1 - p) / N)."""
    return float((accuracy * (1 - accuracy) / num) ** 0.5)


def knn_top1(
    train_features: Tensor, train_labels: Tensor, test_features: Tensor, test_labels: Tensor, k: int = NEIGHBOURS
) -> float:
    """Return the accuracy of k-nearest-neighbour classification by cosine.

    Args:
        train_features: [N, d].
        train_labels: [N].
        test_features: [M, d].
        test_labels: [M].
        k: neighbours that vote; all training samples where there are fewer.
    """
    from sklearn.neighbors import KNeighborsClassifier

    unit_train, unit_test = (
        torch.nn.functional.normalize(rows.float(), dim=1).numpy() for rows in (train_features, test_features)
    )
    classifier = KNeighborsClassifier(min(k, len(unit_train)), algorithm="brute").fit(unit_train, train_labels.numpy())
    return float(classifier.score(unit_test, test_labels.numpy()))
