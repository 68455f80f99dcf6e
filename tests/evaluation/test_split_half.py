"""The half that is fitted on and the half that is measured on hold the same classes."""

import numpy as np
import pytest

from cosify.data import load_splits
from cosify.evaluation.split_half import fitted_and_measured


@pytest.mark.parametrize("order", ["sorted", "alternating", "shuffled"])
@pytest.mark.parametrize("sizes", [[4, 2, 6], [3, 5, 1, 1, 7], [1], [2, 0, 3]])
def test_halves_are_alike(sizes: list[int], order: str) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    if order == "shuffled":
        labels = np.random.default_rng(0).permutation(labels)
    if order == "alternating":
        labels = labels[np.argsort(np.concatenate([np.arange(size) for size in sizes]), kind="stable")]
    halves = fitted_and_measured(labels)
    assert sorted(np.concatenate(halves)) == list(range(len(labels)))
    assert all((np.diff(half) > 0).all() for half in halves)
    counts = [np.bincount(labels[half], minlength=len(sizes)) for half in halves]
    assert np.abs(counts[0] - counts[1]).max() <= 1
    assert len(halves[0]) - len(halves[1]) in (0, 1)


def test_known_halves() -> None:
    fitted, measured = fitted_and_measured([1, 0, 1, 0, 0, 1])
    assert fitted.tolist() == [1, 2, 4]  # in order of class: rows 1, 3, 4, 0, 2, 5
    assert measured.tolist() == [0, 3, 5]
    fitted, measured = fitted_and_measured(np.repeat([0, 1, 2], 4))
    assert (fitted.tolist(), measured.tolist()) == (list(range(0, 12, 2)), list(range(1, 12, 2)))
    assert [len(half) for half in fitted_and_measured([])] == [0, 0]


def test_a_set_whose_classes_take_turns_has_all_in_both_halves() -> None:
    labels = np.array(load_splits("two-digits").test["label"][:])
    assert all(len(set(labels[half])) == 100 for half in fitted_and_measured(labels))
