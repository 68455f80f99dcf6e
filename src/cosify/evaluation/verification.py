"""Verification: do two pictures show one person?  The protocol of LFW and insightface, from the cosine of each pair."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cosify.errors import InputError
from cosify.evaluation.rows import to_float64

RATES = (1e-2, 1e-3, 1e-4)  # false accepts; those that a list of pairs is too short for are left out
# insightface's arcface_torch/eval/verification.py looks at squared distances of unit features, 2 - 2 cosine.
GRID = 1 - np.arange(0, 4, 0.01) / 2

Thresholds = Literal["grid", "exact"]


@dataclass(frozen=True)
class Verification:
    """How well a cosine tells pairs of one person from pairs of two.

    Attributes:
        num_same: pairs of one person.
        num_different: pairs of two.
        accuracy: mean over the folds, each at the threshold of the others; a share.
        deviation: of the folds' accuracies, divided by their number, as insightface prints it.
        standard_error: of the mean accuracy, as LFW asks for.
        fold_accuracies: one each.
        fold_thresholds: cosines above which a pair counted as one person.
        auc: area under the ROC curve.
        eer: the error rate where as many pairs of two are accepted as pairs of one are not; a share.
        tar: for each rate of false accepts the rate of true ones, at a threshold that all pairs set; shares.
    """

    num_same: int
    num_different: int
    accuracy: float
    deviation: float
    standard_error: float
    fold_accuracies: tuple[float, ...]
    fold_thresholds: tuple[float, ...]
    auc: float
    eer: float
    tar: dict[float, float]

    def __repr__(self) -> str:
        rates = ", ".join(f"TAR {tar:.2%} at FAR {rate:g}" for rate, tar in self.tar.items())
        return (
            f"Verification({self.accuracy:.2%} ± {self.standard_error:.2%} of {self.num_same + self.num_different}"
            f" pairs, AUC {self.auc:.4f}, EER {self.eer:.2%}, {rates})"
        )


def verify_pairs(
    cosine: ArrayLike,
    same: ArrayLike,
    *,
    num_folds: int = 10,
    rates: Sequence[float] | None = None,
    thresholds: Thresholds = "grid",
) -> Verification:
    """Measure the cosines of labelled pairs.

    Deviation: true accepts at a rate of false ones are counted exactly, at one threshold that all pairs set together,
    as the IJB protocol does.  insightface interpolates over a grid and takes the threshold of each fold from the other
    nine; where a rate leaves few pairs of two, its values are smaller.

    Args:
        cosine: [N], of each pair's features, in the order of the list of pairs.
        same: [N], whether a pair shows one person.
        num_folds: parts of the list, of equal length and in its order; the threshold of each comes from the others.
        rates: of false accepts, in (0, 1); None for those of 1e-2, 1e-3 and 1e-4 that the pairs are enough for.
        thresholds: `"grid"`, the 400 of insightface, or `"exact"`, any cosine of the other folds.

    Raises:
        ValueError: if the shapes differ, a cosine is no number, folds are unequal or hold one kind of pairs alone, or a
            rate is finer than the number of pairs allows.
    """
    from sklearn.metrics import roc_auc_score

    cosines, truth = _checked(cosine, same, num_folds)
    different = np.sort(cosines[~truth])[::-1]
    if rates is None:
        rates = [rate for rate in RATES if rate * len(different) >= 1]
    accuracies, chosen = [], []
    for part in np.array_split(np.arange(len(truth)), num_folds):
        rest = np.delete(np.arange(len(truth)), part)
        threshold = _best_threshold(cosines[rest], truth[rest], thresholds)
        chosen.append(threshold)
        accuracies.append(float(np.mean((cosines[part] > threshold) == truth[part])))
    return Verification(
        num_same=int(truth.sum()),
        num_different=len(different),
        accuracy=float(np.mean(accuracies)),
        deviation=float(np.std(accuracies)),
        standard_error=float(np.std(accuracies, ddof=1) / np.sqrt(num_folds)),
        fold_accuracies=tuple(accuracies),
        fold_thresholds=tuple(chosen),
        auc=float(roc_auc_score(truth, cosines)),
        eer=_eer(cosines, truth),
        tar={rate: _true_accepts(cosines[truth], different, rate) for rate in rates},
    )


def _checked(cosine: ArrayLike, same: ArrayLike, num_folds: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    cosines, truth = to_float64(cosine), np.asarray(same)
    if cosines.ndim != 1 or truth.shape != cosines.shape or truth.dtype != np.bool_:
        raise InputError(
            f"cosine has shape {list(cosines.shape)} and same {list(truth.shape)} of {truth.dtype}, expected [N] and"
            " [N] of bool: one cosine and one flag for each pair"
        )
    if not np.isfinite(cosines).all():
        row = int(np.flatnonzero(~np.isfinite(cosines))[0])
        raise InputError(f"the cosine of pair {row} is {cosines[row]}, expected a number; look at its two features")
    check_folds(truth, num_folds)
    return cosines, truth


def check_folds(same: NDArray[np.bool_], num_folds: int) -> None:
    """Raise a ValueError unless pairs [N] form folds of equal length that hold both kinds of pairs.

    `verify_pairs` looks itself; call this to know before a model passes over the pictures.

    Args:
        same: [N], whether a pair shows one person.
        num_folds: parts of the list, in its order.
    """
    if num_folds < 2 or len(same) == 0 or len(same) % num_folds:
        raise InputError(
            f"{len(same)} pairs came, expected a number that {num_folds} folds of at least one pair share equally;"
            " give the whole list, in its order, or another num_folds"
        )
    counts = same.reshape(num_folds, -1).sum(axis=1)
    size = len(same) // num_folds
    for fold, count in enumerate(counts):
        if count in (0, size):
            raise InputError(
                f"fold {fold + 1} of {num_folds} has {count} pairs of one person among {size}, expected both kinds;"
                " keep the pairs in the order of their list, whose folds hold as many of each"
            )


def _best_threshold(cosines: NDArray[Any], truth: NDArray[np.bool_], thresholds: Thresholds) -> float:
    """Return the largest threshold of the highest accuracy, as insightface takes the smallest distance."""
    candidates = GRID
    if thresholds == "exact":  # between neighbours, so that rounding decides nothing
        values = np.unique(cosines)[::-1]
        candidates = np.concatenate([values[:1] + 1, (values[1:] + values[:-1]) / 2, values[-1:] - 1])
    ascending = np.sort(cosines[truth]), np.sort(cosines[~truth])
    accepted, rejected = (np.searchsorted(each, candidates, side="right") for each in ascending)
    right = (len(ascending[0]) - accepted) + rejected
    return float(candidates[np.argmax(right)])


def _eer(cosines: NDArray[Any], truth: NDArray[np.bool_]) -> float:
    """Return the mean of the two error rates where they are closest."""
    from sklearn.metrics import roc_curve

    false_accepts, true_accepts, _ = roc_curve(truth, cosines, drop_intermediate=False)
    nearest = np.argmin(np.abs(false_accepts - (1 - true_accepts)))
    return float((false_accepts[nearest] + 1 - true_accepts[nearest]) / 2)


def _true_accepts(same: NDArray[Any], different: NDArray[Any], rate: float) -> float:
    """Return the share of pairs of one person above the threshold that at most `rate` of the others pass.

    Args:
        same: cosines of the pairs of one person.
        different: of the pairs of two, largest first.
        rate: of false accepts.
    """
    allowed = int(np.floor(rate * len(different) + 1e-9))
    if not 0 < rate < 1 or not 1 <= allowed < len(different):
        raise InputError(
            f"the rate of false accepts is {rate:g} with {len(different)} pairs of two people, expected at least"
            f" {1 / len(different):g} and less than 1; leave it out, or bring more pairs"
        )
    return float(np.mean(same > different[allowed]))
