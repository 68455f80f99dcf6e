"""Splits number their classes alike, by name, or are refused."""

import logging
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from cosify.data import load_images, load_splits
from cosify.errors import InputError
from tests.data.folders import parquet_folder, picture
from tests.data.test_folders import CAT_NFC, CAT_NFD, splits_folder


def two_namings(
    folder: Path, train: Sequence[str], test: Sequence[str], labels: Sequence[int | None] = (0, 1, 1)
) -> Path:
    parquet_folder(folder, [0, 1], labels, names=test)
    (folder / "test.parquet").rename(folder / "aside")
    parquet_folder(folder, [0, 1], [0], names=train)
    (folder / "aside").rename(folder / "test.parquet")
    return folder


def test_held_out_labels_are_numbered_as_in_training(tmp_path: Path) -> None:
    folder = two_namings(tmp_path / "d", ["cat", "dog"], ["dog", "cat"])
    splits = load_splits(str(folder))
    assert splits.label_names == ("cat", "dog")
    assert (splits.train["label"][:], splits.test["label"][:]) == ([0, 1], [1, 0, 0])
    assert splits.test.features["label"].names == ["cat", "dog"]
    assert np.array_equal(np.asarray(splits.test[1]["image"]), np.asarray(picture(1)))
    assert splits.test._fingerprint == load_splits(str(folder)).test._fingerprint
    alone = load_images(f"{folder}:test")
    assert (alone.label_names, alone.test["label"][:]) == (("cat", "dog"), [1, 0, 0])
    with pytest.raises(InputError, match=r"numbers the classes of column 'label' otherwise than split 'train', \['dog"):
        load_splits(str(folder), streaming=True, num_train=2)


def test_names_agree_in_any_unicode_form_and_in_part(tmp_path: Path) -> None:
    folder = two_namings(tmp_path / "d", ["zoo", CAT_NFC, "dog"], [CAT_NFD, "zoo"])
    splits = load_splits(str(folder))
    assert (splits.label_names, splits.test["label"][:]) == (("zoo", CAT_NFC, "dog"), [1, 0, 0])
    hidden = two_namings(tmp_path / "hidden", ["cat", "dog"], ["dog", "cat"], [-1, 1, 0])
    assert load_splits(str(hidden)).test["label"][:] == [-1, 0, 1]


@pytest.mark.parametrize(
    ("test", "unknown"), [(["Cat", "Dog"], r"\['Cat', 'Dog'\]"), (["cat", "dog", "bird"], r"\['bird'\]")]
)
def test_other_classes_are_refused(tmp_path: Path, test: Sequence[str], unknown: str) -> None:
    message = rf"split 'test' has the classes {unknown}, which are not among the 2 of split 'train', \['cat', 'dog'\]"
    for folder in (
        two_namings(tmp_path / "parquet", ["cat", "dog"], test),
        splits_folder(tmp_path / "images", ["cat", "dog"], test),
    ):
        for streaming in (False, True):
            with pytest.raises(InputError, match=message):
                load_splits(str(folder), streaming=streaming, num_train=2 if streaming else None)
        assert load_images(f"{folder}:test").label_names in (tuple(test), tuple(sorted(test))), "another task"


def test_folders_agree_in_any_unicode_form(tmp_path: Path) -> None:
    folder = splits_folder(tmp_path / "d", [CAT_NFC, "dog"], [CAT_NFD, "dog"])
    splits = load_splits(str(folder))
    assert splits.label_names == (CAT_NFC, "dog")
    assert splits.test["label"][:] == [0, 0, 1, 1]
    if len(list((folder / "train").iterdir())) == 2:
        splits_folder(folder, [CAT_NFD], [])
    if len(list((folder / "train").iterdir())) == 3:  # a file system that tells the forms apart
        with pytest.raises(InputError, match=r"names the classes .* twice, in two Unicode forms, expected one; make"):
            load_splits(str(folder))


def test_classes_without_training_images_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = parquet_folder(tmp_path / "d", [0, 2, 0], [1, 0], names=["a", "b", "c", "d"])
    with caplog.at_level(logging.WARNING, logger="cosify"):
        assert len(load_splits(str(folder)).label_names) == 4
    assert caplog.messages == [
        "2 of 4 classes have no training images, and cannot be learnt: b, d",
        "2 of 4 classes have no test images, so that no accuracy speaks of them: c, d",
    ]
    caplog.clear()
    assert len(load_splits(f"{parquet_folder(tmp_path / 'one', [0], [0] * 9 + [1], names=['a', 'b'])}:test").train) == 9
    assert caplog.messages == ["1 of 2 classes have no test images, so that no accuracy speaks of them: b"]


def test_hidden_test_labels_are_no_missing_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = parquet_folder(tmp_path / "d", [0, 1], [-1, -1], names=["a", "b"])
    with caplog.at_level(logging.WARNING, logger="cosify"):
        load_splits(str(folder))
    assert not caplog.messages


def test_files_of_one_split_agree_on_their_classes(tmp_path: Path) -> None:
    folder = two_namings(tmp_path / "d", ["cat", "dog"], ["dog", "cat"])
    (folder / "train.parquet").rename(folder / "train-00000-of-00002.parquet")
    (folder / "train-00001-of-00002.parquet").write_bytes((folder / "test.parquet").read_bytes())
    with pytest.raises(
        InputError, match=r"of one split name the classes of column 'label' differently, \['cat', 'dog'"
    ):
        load_splits(str(folder))


def test_files_without_notes_of_datasets_have_the_types_of_train(tmp_path: Path) -> None:
    folder = parquet_folder(tmp_path / "d", [0, 1], [1, 0, 1], names=["a", "b"])
    table = pq.read_table(folder / "test.parquet").replace_schema_metadata(None)
    pq.write_table(table, folder / "test.parquet")
    splits = load_splits(str(folder))
    assert isinstance(splits.test.features["image"], datasets.Image)
    assert splits.test["label"][:] == [1, 0, 1]
    assert load_images(str(folder)).label_names == ("a", "b")
