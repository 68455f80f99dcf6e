"""How well a confidence score tells two groups of samples apart: AP, AUROC, AUPR, FPR95, with bootstrap intervals."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cosify.errors import InputError
from cosify.evaluation.rows import to_float64

RESAMPLES = 1000
CONFIDENCE = 0.95
DRAWS_AT_ONCE = 5_000_000  # samples of all resamples of a block: some hundred MB

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Percentile bootstrap interval, 95 %."""

    low: float
    high: float


@dataclass(frozen=True)
class Detection:
    """How well a score, larger for more confident samples, tells positives from negatives.

    Attributes:
        num_positive: samples to accept, such as those classified correctly.
        num_negative: samples to reject: misclassified or out-of-distribution.
        ap: average precision of the positives, the paper's number; depends on the two counts.
        auroc: area under the ROC curve; does not depend on the counts.
        aupr_in: trapezoidal area under precision and recall of the positives, as OpenOOD and pytorch-ood compute it.
        aupr_out: the same with the negatives as the class to find.
        fpr95_id_positive: share of negatives accepted at the threshold that accepts 95 % of the positives.
        fpr95_ood_positive: share of positives rejected at the threshold that rejects 95 % of the negatives, the
            convention of OpenOOD and pytorch-ood.
        ap_interval: around `ap`.
        auroc_interval: around `auroc`.
    """

    num_positive: int
    num_negative: int
    ap: float
    auroc: float
    aupr_in: float
    aupr_out: float
    fpr95_id_positive: float
    fpr95_ood_positive: float
    ap_interval: Interval
    auroc_interval: Interval


def detection(positive: ArrayLike, negative: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Detection:
    """Measure a score whose larger values mean more confidence.

    AP is scikit-learn's (a sum of steps), not a trapezoidal area.  For the intervals each group is resampled at its own
    size, so that the share of positives, on which AP depends, stays the same.

    Args:
        positive: scores [N] of samples to accept.
        negative: scores [M] of samples to reject.
        resamples: of the bootstrap, at least 100.
        seed: of the bootstrap.

    Raises:
        ValueError: if a group is empty, or a score is NaN.  Infinite scores are allowed.
    """
    from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

    positive, negative = _scores("positive", positive), _scores("negative", negative)
    if resamples < 100:
        raise InputError(f"resamples is {resamples}, expected at least 100 for a 95 % interval; leave it out for 1000")
    # Ranks instead of scores: the order is the same, also of infinite ones, and sums of ranks do not round.
    values, rank = np.unique(np.concatenate([positive, negative]), return_inverse=True)
    is_positive = np.arange(len(rank)) < len(positive)

    def area(truth: NDArray[np.bool_], score: NDArray[Any]) -> float:
        precision, recall, _ = precision_recall_curve(truth, score)
        return float(auc(recall, precision))

    def around(value: float, interval: Interval) -> Interval:
        """Return the interval, widened to hold the value: repeated samples are ties, which lower AP a little."""
        return Interval(min(value, interval.low), max(value, interval.high))

    ap, auroc = float(average_precision_score(is_positive, rank)), float(roc_auc_score(is_positive, rank))
    by_ap, by_auroc = _bootstrap(rank[: len(positive)], rank[len(positive) :], len(values), resamples, seed)
    return Detection(
        num_positive=len(positive),
        num_negative=len(negative),
        ap=ap,
        auroc=auroc,
        aupr_in=area(is_positive, rank),
        aupr_out=area(~is_positive, -rank),
        fpr95_id_positive=_fpr95(is_positive, rank),
        fpr95_ood_positive=_fpr95(~is_positive, -rank),
        ap_interval=around(ap, by_ap),
        auroc_interval=around(auroc, by_auroc),
    )


def threshold_at(scores: ArrayLike, share: float) -> float:
    """Return the largest threshold that at least `share` of the scores reach.

    Args:
        scores: [N], of samples to accept.
        share: in (0, 1], such as 0.95 for a true positive rate of 95 %.

    Raises:
        ValueError: if there are no scores, one is NaN, or the share is out of range.
    """
    found = np.sort(_scores("accepted", scores))[::-1]
    if not 0 < share <= 1:
        raise InputError(f"share is {share}, expected above 0 and at most 1, such as 0.95")
    # Rates are compared, not counts: share * N may round above a whole number, as 0.07 * 100 does.
    reached = np.arange(1, len(found) + 1) / len(found)
    return float(found[np.searchsorted(reached, share)])


def _scores(name: str, scores: ArrayLike) -> Floats:
    found = to_float64(scores)
    if found.ndim != 1 or len(found) == 0:
        raise InputError(
            f"{name} scores have shape {list(found.shape)}, expected [N] with N at least 1; metrics need samples of"
            " both kinds: check the sets, or that the model makes both right and wrong predictions"
        )
    bad = int(np.isnan(found).sum())
    if bad > 0:
        raise InputError(
            f"{bad} of {len(found)} {name} scores are NaN, expected numbers; check the model and its images"
        )
    return found


def _fpr95(truth: NDArray[np.bool_], score: NDArray[Any]) -> float:
    """Return the false positive rate at the first threshold, from above, with a true positive rate of 0.95 or more."""
    from sklearn.metrics import roc_curve

    # By default scikit-learn drops points on straight lines, of which this may be one.
    fpr, tpr, _ = roc_curve(truth, score, drop_intermediate=False)
    return float(fpr[np.argmax(tpr >= 0.95)])


def _bootstrap(
    positive: NDArray[np.intp], negative: NDArray[np.intp], num_ranks: int, resamples: int, seed: int
) -> tuple[Interval, Interval]:
    """Return the intervals of AP and AUROC."""
    generator = np.random.default_rng(seed)
    aps, aurocs = [], []
    block = max(1, DRAWS_AT_ONCE // (len(positive) + len(negative)))
    for start in range(0, resamples, block):
        num = min(block, resamples - start)
        ap, auroc = ap_and_auroc(*(_resampled(ranks, num_ranks, num, generator) for ranks in (positive, negative)))
        aps.append(ap)
        aurocs.append(auroc)
    tail = 100 * (1 - CONFIDENCE) / 2
    of_ap, of_auroc = (np.percentile(np.concatenate(values), [tail, 100 - tail]).tolist() for values in (aps, aurocs))
    return Interval(*of_ap), Interval(*of_auroc)


def _resampled(ranks: NDArray[np.intp], num_ranks: int, num: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return how often each rank occurs in `num` draws of all samples with replacement, [num, num_ranks]."""
    drawn = ranks[generator.integers(len(ranks), size=(num, len(ranks)))]
    drawn += np.arange(num)[:, None] * num_ranks
    return np.bincount(drawn.ravel(), minlength=num * num_ranks).reshape(num, num_ranks)


def ap_and_auroc(positive: NDArray[np.int64], negative: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return AP and AUROC, [R] each, of many resamples at once.

    Args:
        positive: [R, G], number of positives with each of the G values of the score, smallest value first.
        negative: [R, G], the same for negatives.
    """
    accepted = positive[:, ::-1].cumsum(axis=1).astype(np.float64)
    wrongly = negative[:, ::-1].cumsum(axis=1)
    precision = accepted / np.maximum(accepted + wrongly, 1)
    total = accepted[:, -1]
    ap = (precision * positive[:, ::-1]).sum(axis=1) / total
    # Each positive beats the negatives of lower rank, and half of those of the same one.
    beaten = wrongly[:, -1:] - wrongly + 0.5 * negative[:, ::-1]
    auroc = (beaten * positive[:, ::-1]).sum(axis=1) / (total * wrongly[:, -1])
    return ap, auroc
