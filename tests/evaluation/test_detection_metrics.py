"""Detection metrics against scikit-learn, pytorch-ood, OpenOOD's recipe, and a count over all thresholds."""

import dataclasses
import importlib
import itertools
import math
import re
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike, NDArray
from pytorch_ood.metrics import OODMetrics
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torchmetrics.functional.classification import binary_average_precision

from cosify.evaluation import Detection, detection, threshold_at, to_outlier_scores
from cosify.evaluation.detection_metrics import ap_and_auroc

Floats = NDArray[np.float64]
Make = Callable[..., tuple[Floats, Floats]]
METRICS = ("ap", "auroc", "aupr_in", "aupr_out", "fpr95_id_positive", "fpr95_ood_positive")
INF = math.inf


def normal(num_positive: int, num_negative: int, shift: float = 1.0, seed: int = 0) -> tuple[Floats, Floats]:
    generator = np.random.default_rng(seed)
    return generator.normal(shift, 1, num_positive), generator.normal(0, 1, num_negative)


def tied(num_positive: int, num_negative: int, seed: int = 0) -> tuple[Floats, Floats]:
    positive, negative = normal(num_positive, num_negative, seed=seed)
    return np.round(positive), np.round(negative)


CASES: dict[str, tuple[ArrayLike, ArrayLike]] = {
    "separate": ([3.0, 4.0], [1.0, 2.0, 2.5]),
    "inverted": ([1.0, 2.0], [3.0, 4.0, 5.0]),
    "all equal": ([2.0] * 7, [2.0] * 3),
    "one each, equal": ([0.0], [0.0]),
    "one positive": ([0.3], [0.1, 0.2, 0.3, 0.4]),
    "one negative": ([0.1, 0.2, 0.3, 0.4], [0.3]),
    "signed zeros": ([0.0, -0.0, 1.0], [-0.0, 0.0, -1.0]),
    "infinities": ([INF, INF, 1.0, -INF], [INF, -INF, -INF, 0.0]),
    "below float32": ([1.0 + 2e-12, 1.0 + 1e-12], [1.0, 1.0 + 1.5e-12]),
    "huge": ([1e300, -1e300, 5.0], [-1e300, 1e-300, 4.0]),
    "twenty": (np.arange(20.0), np.arange(20.0) - 0.5),  # a rate of 19 / 20 is 0.95 exactly
    "nineteen": (np.arange(19.0), np.arange(19.0) - 0.5),
    "normal": normal(137, 61),
    "tied": tied(137, 61),
    "few against many": tied(5, 400, seed=3),
}
FINITE = [name for name in CASES if name != "infinities"]


def case(name: str) -> tuple[Floats, Floats]:
    positive, negative = CASES[name]
    return np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)


def by_brute_force(positive: Floats, negative: Floats) -> dict[str, float]:
    """Count the accepted at every threshold, by plain loops."""
    thresholds = sorted({*positive.tolist(), *negative.tolist()}, reverse=True)
    counts = [(sum(p >= t for p in positive), sum(n >= t for n in negative)) for t in thresholds]
    rejected = [(sum(p <= t for p in positive), sum(n <= t for n in negative)) for t in thresholds[::-1]]
    P, N = len(positive), len(negative)

    def trapezoid(points: list[tuple[float, float]]) -> float:
        return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))

    steps = zip(counts, [(0, 0), *counts], strict=False)
    return {
        "ap": sum((now[0] - before[0]) / P * now[0] / sum(now) for now, before in steps),
        "auroc": sum((p > n) + 0.5 * (p == n) for p in positive for n in negative) / (P * N),
        "aupr_in": trapezoid([(0.0, 1.0), *((p / P, p / (p + n)) for p, n in counts)]),
        "aupr_out": trapezoid([(0.0, 1.0), *((n / N, n / (p + n)) for p, n in rejected)]),
        "fpr95_id_positive": next(n / N for p, n in counts if 20 * p >= 19 * P),
        "fpr95_ood_positive": next(p / P for p, n in rejected if 20 * n >= 19 * N),
    }


def measure(positive: ArrayLike, negative: ArrayLike, resamples: int = 100, seed: int = 0) -> Detection:
    return detection(positive, negative, resamples=resamples, seed=seed)


def truth_and_scores(positive: Floats, negative: Floats) -> tuple[NDArray[np.bool_], Floats]:
    return np.arange(len(positive) + len(negative)) < len(positive), np.concatenate([positive, negative])


@pytest.mark.parametrize("name", CASES)
def test_every_metric_by_counting(name: str) -> None:
    positive, negative = case(name)
    found = dataclasses.asdict(measure(positive, negative))
    assert {metric: found[metric] for metric in METRICS} == pytest.approx(by_brute_force(positive, negative), abs=1e-12)
    assert (found["num_positive"], found["num_negative"]) == (len(positive), len(negative))


@pytest.mark.parametrize("name", FINITE)
def test_ap_and_auroc_are_those_of_sklearn(name: str) -> None:
    truth, scores = truth_and_scores(*case(name))
    found = measure(*case(name))
    assert found.ap == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    assert found.auroc == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_pytorch_ood_agrees(name: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*AUTC.*")  # which constant and infinite scores have not
        theirs = OODMetrics().update(*to_outlier_scores(*case(name))).compute()
    ours = measure(*case(name))
    # Their thresholds are the unique scores, and they take the first with a rate of 0.95 or more, as we do: no
    # difference in ties.
    assert theirs["AUROC"] == pytest.approx(ours.auroc, abs=1e-6)
    assert theirs["AUPR-IN"] == pytest.approx(ours.aupr_in, abs=1e-6)
    assert theirs["AUPR-OUT"] == pytest.approx(ours.aupr_out, abs=1e-6)
    assert theirs["FPR95TPR"] == pytest.approx(ours.fpr95_ood_positive, abs=1e-6)


def openood_fpr95(accept: Floats, reject: Floats) -> float:
    """OpenOOD v1.5, `compute_all_metrics`: outliers positive, conf larger for in-distribution samples."""
    ood = np.concatenate([np.zeros(len(accept)), np.ones(len(reject))])
    fpr, tpr, _ = roc_curve(ood, -np.concatenate([accept, reject]))
    return float(fpr[np.argmax(tpr >= 0.95)])


@pytest.mark.parametrize("name", ["separate", "inverted", "twenty", "nineteen", "normal", "tied"])
def test_openood_agrees(name: str) -> None:
    assert measure(*case(name)).fpr95_ood_positive == pytest.approx(openood_fpr95(*case(name)), abs=1e-12)


def test_openood_overshoots_on_a_straight_piece_of_the_curve() -> None:
    scores = np.arange(100.0)  # each held by one sample of both kinds: the curve is the diagonal
    assert openood_fpr95(scores, scores) == 1.0, "scikit-learn dropped the point at 0.95"
    found = measure(scores, scores)
    assert (found.fpr95_ood_positive, found.fpr95_id_positive) == (0.95, 0.95)
    theirs = OODMetrics().update(*to_outlier_scores(scores, scores)).compute()
    assert theirs["FPR95TPR"] == pytest.approx(0.95)


def test_the_two_conventions_of_fpr95_differ() -> None:
    positive = np.array([-5.0] + [1.0] * 39)  # one of 40 below every negative
    negative = np.array([0.0] * 15 + [2.0] * 5)  # a quarter above every positive
    found = measure(positive, negative)
    assert found.fpr95_id_positive == 0.25, "39 of 40 are accepted from 1 on, as are 5 of 20 negatives"
    assert found.fpr95_ood_positive == 1.0, "to reject 19 of 20 negatives takes a threshold above every positive"


@pytest.mark.parametrize("name", CASES)
def test_negated_and_swapped(name: str) -> None:
    positive, negative = case(name)
    found, mirrored = measure(positive, negative), measure(-negative, -positive)
    assert mirrored.auroc == pytest.approx(found.auroc)
    assert mirrored.aupr_in == pytest.approx(found.aupr_out)
    assert mirrored.fpr95_id_positive == pytest.approx(found.fpr95_ood_positive)
    assert mirrored.fpr95_ood_positive == pytest.approx(found.fpr95_id_positive)


def test_only_the_order_of_scores_and_not_of_samples_counts() -> None:
    positive, negative = tied(60, 40)
    found = measure(positive, negative)
    assert measure(1e5 * positive**3 + 7, 1e5 * negative**3 + 7) == found
    shuffled = measure(positive[::-1], np.sort(negative))
    assert [getattr(shuffled, name) for name in METRICS] == [getattr(found, name) for name in METRICS]


def test_inputs_are_left_alone_and_may_be_of_any_kind() -> None:
    positive, negative = [3, 1, 2], torch.tensor([0.5, 2.0], dtype=torch.float32)
    assert measure(positive, negative) == measure(np.array(positive, dtype=np.float32), negative.tolist())
    assert (positive, negative.tolist()) == ([3, 1, 2], [0.5, 2.0])
    low = negative.to(torch.bfloat16).requires_grad_()
    assert measure(torch.tensor(positive), low) == measure(positive, negative)


def test_random_scores_have_the_base_rate_as_ap() -> None:
    constant = measure([0.0] * 771, [0.0] * 229)
    assert (constant.ap, constant.auroc) == (pytest.approx(0.771), 0.5)
    random = measure(*normal(77_100, 22_900, shift=0.0))
    assert random.ap == pytest.approx(0.771, abs=0.005)
    assert random.auroc == pytest.approx(0.5, abs=0.005)


def test_ap_depends_on_the_base_rate_and_auroc_does_not() -> None:
    positive, negative = normal(300, 50)
    found, fewer = measure(positive, np.repeat(negative, 4)), measure(positive, negative)
    assert found.auroc == pytest.approx(fewer.auroc, abs=1e-12)
    assert found.fpr95_id_positive == pytest.approx(fewer.fpr95_id_positive)
    assert found.fpr95_ood_positive == pytest.approx(fewer.fpr95_ood_positive)
    assert fewer.ap - found.ap > 0.03


def test_no_sigmoid_as_in_torchmetrics() -> None:
    # torchmetrics applies a sigmoid to scores outside [0, 1]: in float32 it is 1 from 17 on, and they tie.
    positive, negative = normal(2000, 500, shift=1.5)
    positive, negative = 100 * positive + 100, 100 * negative + 100
    truth, scores = truth_and_scores(positive, negative)
    theirs = float(binary_average_precision(torch.from_numpy(scores).float(), torch.from_numpy(truth).long()))
    ours = measure(positive, negative).ap
    assert ours == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    assert ours - theirs > 0.03
    _, rank = np.unique(scores, return_inverse=True)
    ranks = torch.from_numpy(rank / len(rank))
    assert float(binary_average_precision(ranks, torch.from_numpy(truth).long())) == pytest.approx(ours, abs=1e-6)


def test_trapezoidal_area_is_not_ap() -> None:
    found = measure([1.0], [0.0, 1.0])  # the curve runs from (0, 1) straight to (1, 1 / 2)
    assert (found.ap, found.aupr_in) == (0.5, 0.75)


@pytest.mark.parametrize("make", [normal, tied])
def test_resamples_are_weights_of_sklearn(make: Make) -> None:
    positive, negative = make(40, 25)
    truth, scores = truth_and_scores(positive, negative)
    values, rank = np.unique(scores, return_inverse=True)
    generator = np.random.default_rng(0)
    weights = np.array(
        [np.concatenate([np.bincount(generator.integers(n, size=n), minlength=n) for n in (40, 25)]) for _ in range(50)]
    )
    grouped = np.zeros((2, 50, len(values)), dtype=np.int64)
    for row, weight in enumerate(weights):
        np.add.at(grouped[0, row], rank[truth], weight[truth])
        np.add.at(grouped[1, row], rank[~truth], weight[~truth])
    ap, auroc = ap_and_auroc(grouped[0], grouped[1])
    np.testing.assert_allclose(ap, [average_precision_score(truth, scores, sample_weight=w) for w in weights])
    np.testing.assert_allclose(auroc, [roc_auc_score(truth, scores, sample_weight=w) for w in weights])


@pytest.mark.parametrize("make", [normal, tied])
def test_interval_holds_the_point_and_narrows(make: Make) -> None:
    few, many = (measure(*make(num, num), resamples=300) for num in (50, 5000))
    for found in (few, many):
        assert found.ap_interval.low < found.ap < found.ap_interval.high
        assert found.auroc_interval.low < found.auroc < found.auroc_interval.high
    for name in ("ap_interval", "auroc_interval"):
        narrow, wide = getattr(many, name), getattr(few, name)
        ratio = (wide.high - wide.low) / (narrow.high - narrow.low)
        assert 5 < ratio < 20, "near the square root of 100"


def plain(positive: Floats, negative: Floats) -> tuple[float, float]:
    """Return average precision and AUROC by their definitions: one threshold a distinct score, ties count half."""
    thresholds = np.unique(np.concatenate([positive, negative]))[::-1]
    right, wrong = ((scores >= thresholds[:, None]).sum(axis=1) for scores in (positive, negative))
    recall = np.diff(right, prepend=0) / len(positive)
    pairs = np.sign(positive[:, None] - negative)
    return float((recall * right / (right + wrong)).sum()), float((pairs + 1).mean() / 2)


@pytest.mark.slow
def test_interval_is_that_of_plain_resampling() -> None:
    positive, negative = tied(60, 30)
    found = measure(positive, negative, resamples=4000)
    generator = np.random.default_rng(5)
    aps, aurocs = [], []
    for number in range(2000):
        drawn = generator.choice(positive, 60), generator.choice(negative, 30)
        ap, auroc = plain(*drawn)
        if number < 50:  # scikit-learn takes a hundred times as long
            truth, scores = truth_and_scores(*drawn)
            assert ap == pytest.approx(average_precision_score(truth, scores))
            assert auroc == pytest.approx(roc_auc_score(truth, scores))
        aps.append(ap)
        aurocs.append(auroc)
    for interval, values in ((found.ap_interval, aps), (found.auroc_interval, aurocs)):
        np.testing.assert_allclose((interval.low, interval.high), np.percentile(values, [2.5, 97.5]), atol=0.012)


def test_interval_by_seed() -> None:
    positive, negative = normal(80, 40)
    found = measure(positive, negative)
    assert measure(positive, negative) == found
    other = measure(positive, negative, seed=1)
    assert other.ap_interval != found.ap_interval
    assert other.auroc_interval != found.auroc_interval
    assert (other.ap, other.auroc) == (found.ap, found.auroc)


def test_interval_of_certain_scores() -> None:
    perfect = measure([2.0, 3.0], [0.0, 1.0])
    assert (perfect.ap_interval.low, perfect.ap_interval.high) == (1.0, 1.0)
    equal = measure([1.0] * 3, [1.0])
    assert (equal.ap_interval.low, equal.ap_interval.high) == (0.75, 0.75), "both groups keep their size"
    assert (equal.auroc_interval.low, equal.auroc_interval.high) == (0.5, 0.5)


def test_blocks_of_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("cosify.evaluation.detection_metrics")
    blocks: list[int] = []

    def counted(positive: NDArray[np.int64], negative: NDArray[np.int64]) -> tuple[Floats, Floats]:
        blocks.append(len(positive))
        return ap_and_auroc(positive, negative)

    monkeypatch.setattr(module, "DRAWS_AT_ONCE", 30 * 120)
    monkeypatch.setattr(module, "ap_and_auroc", counted)
    found = measure(*normal(80, 40), resamples=101)
    assert blocks == [30, 30, 30, 11]
    assert found.auroc_interval.low < found.auroc < found.auroc_interval.high


@pytest.mark.slow
def test_coverage() -> None:
    truth = 0.5 * (1 + math.erf(1 / 2))  # AUROC of normal distributions one deviation apart
    covered = 0
    for seed in range(200):
        interval = measure(*normal(60, 60, seed=seed), resamples=200, seed=seed).auroc_interval
        covered += interval.low <= truth <= interval.high
    assert 0.88 <= covered / 200 <= 0.985


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [1.0]), "positive scores have shape [0], expected [N] with N at least 1; metrics need samples of both"),
        (([1.0], []), "negative scores have shape [0], expected [N] with N at least 1"),
        (([[1.0], [2.0]], [1.0]), "positive scores have shape [2, 1], expected [N]"),
        (([1.0], 2.0), "negative scores have shape [], expected [N]"),
        (([1.0, math.nan, math.nan], [1.0]), "2 of 3 positive scores are NaN, expected numbers; check the model"),
        (([1.0], [math.nan]), "1 of 1 negative scores are NaN"),
    ],
)
def test_errors(arguments: tuple[ArrayLike, ArrayLike], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        measure(*arguments)


def test_few_resamples() -> None:
    with pytest.raises(ValueError, match=r"resamples is 99, expected at least 100 for a 95 % interval; leave it out"):
        measure([1.0], [0.0], resamples=99)


@pytest.mark.parametrize("num", [1, 2, 3, 7, 19, 20, 21, 100, 300, 999])
@pytest.mark.parametrize("make", [normal, tied])
def test_threshold_accepts_the_share_and_no_more(make: Make, num: int) -> None:
    scores, _ = make(num, 1)
    for share in (*(percent / 100 for percent in range(1, 101)), 1 / 3, 1e-9, 0.999999):
        threshold = threshold_at(scores, share)
        assert threshold in scores
        assert (scores >= threshold).mean() >= share
        above = scores[scores > threshold]
        assert len(above) / len(scores) < share, "a larger threshold would do, too"


def test_threshold_by_hand() -> None:
    scores = np.arange(1.0, 101.0)
    assert threshold_at(scores, 0.95) == 6.0
    assert threshold_at(scores, 0.07) == 94.0, "0.07 * 100 is above 7 in floating point"
    assert threshold_at(scores, 1.0) == 1.0
    assert threshold_at([5.0], 0.01) == 5.0
    assert threshold_at([-INF, 0.0, INF, INF], 0.75) == 0.0
    assert threshold_at([-INF, 0.0, INF, INF], 1.0) == -INF


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, math.nan])
def test_threshold_share(share: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"share is {share}, expected above 0 and at most 1, such as 0.95")):
        threshold_at([1.0], share)


def test_threshold_errors() -> None:
    with pytest.raises(ValueError, match=re.escape("accepted scores have shape [0], expected [N] with N at least 1")):
        threshold_at([], 0.95)
    with pytest.raises(ValueError, match="1 of 2 accepted scores are NaN"):
        threshold_at([math.nan, 1.0], 0.95)
