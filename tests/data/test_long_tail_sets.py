import numpy as np
import pytest
from datasets import ClassLabel, Dataset

from cosify.data import Splits, exponential_sizes, load_splits, long_tailed


def balanced(num_classes: int = 5, size: int = 20) -> Splits:
    labels = np.tile(np.arange(num_classes), size)
    rows = Dataset.from_dict({"image": list(range(len(labels)))})
    rows = rows.add_column("label", labels.tolist(), feature=ClassLabel(num_classes=num_classes))
    names = tuple(map(str, range(num_classes)))
    return Splits(rows, rows.select(range(num_classes)), "image", "label", names, len(labels))


@pytest.mark.parametrize(
    ("largest", "num_classes", "imbalance", "total", "smallest"),
    [
        (500, 100, 100, 10_847, 5),
        (500, 100, 50, 12_608, 10),
        (500, 100, 10, 19_573, 50),
        (5000, 10, 100, 12_406, 50),
    ],
)
def test_sizes_are_those_of_the_published_sets(
    largest: int, num_classes: int, imbalance: float, total: int, smallest: int
) -> None:
    sizes = exponential_sizes(largest, num_classes, imbalance)
    assert (sizes.sum(), sizes[0], sizes[-1]) == (total, largest, smallest)
    assert (np.diff(sizes) <= 0).all()


def test_classes_keep_the_first_rows_of_the_shuffle_of_the_published_recipe() -> None:
    splits = balanced()
    made = long_tailed(splits, 10, seed=3)
    # The published code, LDAM-DRW's imbalance_cifar.py, with its global generator.
    np.random.seed(3)  # noqa: NPY002
    labels, expected = np.asarray(splits.train["label"]), []
    for label in range(5):
        rows = np.where(labels == label)[0]
        np.random.shuffle(rows)  # noqa: NPY002
        expected += rows[: int(20 * 0.1 ** (label / 4))].tolist()
    assert made.train["image"][:] == expected
    assert made.num_train == len(expected) == sum((20, 11, 6, 3, 2))
    assert made.test is splits.test


def test_classes_that_differ_a_little_are_cut_from_the_smallest() -> None:
    made = long_tailed(load_splits("digits"), 10)
    sizes = np.bincount(made.train["label"][:])
    smallest = np.bincount(load_splits("digits").train["label"][:]).min()
    assert sizes.tolist() == exponential_sizes(int(smallest), 10, 10).tolist()


@pytest.mark.parametrize(
    ("imbalance", "message"),
    [
        (0.5, "imbalance is 0.5, expected 1 or more"),
        (float("nan"), "imbalance is nan, expected 1 or more"),
        (21, "keeps no image of the last of 5 classes, expected less than 20"),
    ],
)
def test_what_cannot_be_made_is_refused(imbalance: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        long_tailed(balanced(), imbalance)


def test_a_stream_is_refused() -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match="imbalance is set with a stream"):
        long_tailed(replace(balanced(), streaming=True), 10)
