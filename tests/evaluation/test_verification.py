"""Verification equals loops over pairs, folds and thresholds, ties and all."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold

from cosify.evaluation import Verification, verify_pairs

TOLERANCE = 1e-12


def pairs(kind: str, num_folds: int = 10, per_fold: int = 20, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    same = np.tile(np.arange(per_fold) < per_fold // 2, num_folds)
    cosine = np.clip(rng.normal(0.3 * same, 0.2), -1, 1)
    if kind == "ties":
        cosine = np.round(cosine, 1)
    elif kind == "equal":
        cosine = np.full_like(cosine, 0.25)
    elif kind == "one fold without an error":
        cosine[:per_fold] = np.where(same[:per_fold], 0.9, -0.9)
    return cosine, same


def right(cosine: Any, same: Any, threshold: float) -> int:
    return sum((value > threshold) == flag for value, flag in zip(cosine, same, strict=True))


def by_loops(cosine: Any, same: Any, num_folds: int, exact: bool) -> dict[str, Any]:
    """Return accuracies and thresholds as insightface's calculate_roc finds them, and rates by counting."""
    accuracies, chosen = [], []
    for rest, part in KFold(num_folds, shuffle=False).split(cosine):
        candidates = [1 - distance / 2 for distance in np.arange(0, 4, 0.01)]
        if exact:
            values = sorted(set(cosine[rest]), reverse=True)
            between = [(larger + smaller) / 2 for larger, smaller in itertools.pairwise(values)]
            candidates = [values[0] + 1, *between, values[-1] - 1]
        best, threshold = -1, math.nan
        for candidate in candidates:
            count = right(cosine[rest], same[rest], candidate)
            if count > best:
                best, threshold = count, candidate
        chosen.append(threshold)
        accuracies.append(right(cosine[part], same[part], threshold) / len(part))
    mean = sum(accuracies) / num_folds
    variance = sum((each - mean) ** 2 for each in accuracies)
    errors = []
    for threshold in [math.inf, *sorted(set(cosine), reverse=True)]:  # accepted from there on
        false_accepts = np.mean([value >= threshold for value in cosine[~same]])
        false_rejects = np.mean([value < threshold for value in cosine[same]])
        errors.append((abs(false_accepts - false_rejects), (false_accepts + false_rejects) / 2))
    return {
        "fold_accuracies": accuracies,
        "fold_thresholds": chosen,
        "accuracy": mean,
        "deviation": math.sqrt(variance / num_folds),
        "standard_error": math.sqrt(variance / (num_folds - 1) / num_folds),
        "eer": min(errors, key=lambda each: each[0])[1],
        "auc": roc_auc_score(same, cosine),
    }


@pytest.mark.slow
@pytest.mark.parametrize("thresholds", ["grid", "exact"])
@pytest.mark.parametrize("kind", ["plain", "ties", "equal", "one fold without an error"])
def test_it_is_what_loops_count(kind: str, thresholds: Any) -> None:
    cosine, same = pairs(kind)
    found = verify_pairs(cosine, same, thresholds=thresholds)
    for name, value in by_loops(cosine, same, 10, thresholds == "exact").items():
        assert getattr(found, name) == pytest.approx(value, abs=TOLERANCE), name
    assert (found.num_same, found.num_different) == (100, 100)


@pytest.mark.parametrize("kind", ["plain", "ties", "equal"])
def test_true_accepts_at_a_rate_of_false_ones(kind: str) -> None:
    cosine, same = pairs(kind, per_fold=60)
    found = verify_pairs(cosine, same, rates=[0.01, 0.1, 0.5])
    for rate, share in found.tar.items():
        possible = [
            np.mean(cosine[same] > threshold)
            for threshold in [*cosine, 2.0]
            if np.sum(cosine[~same] > threshold) <= rate * np.sum(~same) + 1e-9
        ]
        assert share == pytest.approx(max(possible), abs=TOLERANCE), rate


def test_rates_are_those_that_the_pairs_are_enough_for() -> None:
    cosine, same = pairs("plain", per_fold=60)
    assert list(verify_pairs(cosine, same).tar) == [0.01]
    assert list(verify_pairs(*pairs("plain", per_fold=600)).tar) == [0.01, 0.001]
    with pytest.raises(ValueError, match="the rate of false accepts is 1 with"):
        verify_pairs(cosine, same, rates=[1 - 1e-13])


def test_the_threshold_of_a_fold_comes_from_the_others() -> None:
    cosine, same = pairs("plain")
    shifted = cosine.copy()
    shifted[:20] += 3.0  # of the first fold alone, in which nothing is below the others' threshold now
    first, moved = verify_pairs(cosine, same), verify_pairs(shifted, same)
    assert moved.fold_thresholds[0] == first.fold_thresholds[0]
    assert moved.fold_accuracies[0] == 0.5


def test_repr() -> None:
    shown = repr(verify_pairs(*pairs("one fold without an error", per_fold=60)))
    assert shown.startswith("Verification(")
    assert "of 600 pairs, AUC 0." in shown
    assert "TAR " in shown
    assert isinstance(verify_pairs(*pairs("plain")), Verification)


COSINE, SAME = pairs("plain")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"cosine": COSINE[:-1]},
            r"cosine has shape \[199\] and same \[200\] of bool, expected \[N\] and \[N\] of bool",
        ),
        ({"same": SAME.astype(int)}, r"same \[200\] of int64, expected"),
        ({"cosine": np.where(np.arange(200) == 7, np.nan, COSINE)}, "the cosine of pair 7 is nan, expected a number"),
        ({"num_folds": 7}, "200 pairs came, expected a number that 7 folds of at least one pair share equally"),
        ({"num_folds": 1}, "200 pairs came, expected a number that 1 folds"),
        ({"cosine": [], "same": np.array([], dtype=bool)}, "0 pairs came"),
        (
            {"same": np.sort(SAME)},
            "fold 1 of 10 has 0 pairs of one person among 20, expected both kinds; keep the pairs",
        ),
        ({"same": np.sort(SAME)[::-1]}, "fold 1 of 10 has 20 pairs of one person among 20"),
        ({"rates": [1e-3]}, "the rate of false accepts is 0.001 with 100 pairs of two people, expected at least 0.01"),
        ({"rates": [1.0]}, "the rate of false accepts is 1 with 100 pairs"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verify_pairs(**{"cosine": COSINE, "same": SAME, **arguments})
