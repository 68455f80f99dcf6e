"""Labels that are words are numbered as class folders are."""

import gc
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import datasets
import pytest

from cosify.data import load_images, load_splits
from cosify.data.words import number_words
from cosify.errors import InputError
from tests.data.folders import parquet_folder
from tests.data.test_folders import CAT_NFC, CAT_NFD, write

NAMES = ("Zebra", "dog", "\u00c4pfel rot")


def described(folder: Path, kind: str, train: Sequence[object], test: Sequence[object]) -> Path:
    """Write images with metadata beside them, and the labels in these."""
    write(folder, {"train": len(train), "test": len(test)})
    for split, labels in (("train", train), ("test", test)):
        if kind == "csv":
            lines = ["file_name,label", *(f"{row}.png,{label}" for row, label in enumerate(labels))]
        else:
            lines = [json.dumps({"file_name": f"{row}.png", "label": label}) for row, label in enumerate(labels)]
        (folder / split / f"metadata.{kind}").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # datasets 5 does not close metadata.csv
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_words_are_classes_in_the_order_of_class_folders(tmp_path: Path, kind: str) -> None:
    train, test = [NAMES[2], NAMES[0], NAMES[1], NAMES[2]], [NAMES[1], NAMES[2]]
    if kind == "parquet":
        folder = parquet_folder(tmp_path / "d", train, test)
    else:
        folder = described(tmp_path / "d", kind, train, test)
    splits = load_splits(str(folder))
    folders = load_splits(
        str(write(tmp_path / "f", {f"{split}/{name}": 1 for split in ("train", "test") for name in NAMES}))
    )
    assert splits.label_names == folders.label_names == NAMES
    assert (splits.train["label"][:], splits.test["label"][:]) == ([2, 0, 1, 2], [1, 2])
    assert splits.test._fingerprint == load_splits(str(folder)).test._fingerprint
    alone = load_images(f"{folder}:test")
    assert (alone.label_names, alone.test["label"][:]) == (NAMES, [1, 2]), "labels of one split are those of training"
    with pytest.raises(
        InputError, match=r"expected ClassLabel: a stream cannot be searched for its classes; .*, or dr"
    ):
        load_splits(str(folder), streaming=True, num_train=4)
    gc.collect()  # of files that were not closed, while their warning is ignored


def test_words_of_one_split_are_divided(tmp_path: Path) -> None:
    folder = parquet_folder(tmp_path / "d", ["b", "a"] * 10, ["a"])
    splits = load_splits(f"{folder}:train")
    assert (splits.label_names, len(splits.train), len(splits.test)) == (("a", "b"), 16, 4)


def test_words_that_train_lacks_are_refused(tmp_path: Path) -> None:
    folder = parquet_folder(tmp_path / "d", ["cat", "dog"], ["dog", "bird"])
    with pytest.raises(InputError, match=r"split 'test' has the classes \['bird'\], which are not among the 2 of"):
        load_splits(str(folder))
    assert load_images(f"{folder}:test").label_names == ("bird", "dog")


def test_words_and_numbers_are_not_mixed() -> None:
    rows = {
        name: datasets.Dataset.from_dict({"label": labels}) for name, labels in (("train", [0, 1]), ("test", ["a"]))
    }
    with pytest.raises(
        InputError, match=r"'label' holds words in split 'test' and Value\('int64'\) in split 'train', exp"
    ):
        number_words(rows, "label")


def test_numbers_with_gaps_are_no_labels_of_images_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = parquet_folder(tmp_path / "d", [1, 2, 5], [0])
    with caplog.at_level(logging.WARNING, logger="cosify"):
        assert load_images(f"{folder}:train").label_names == ("unlabelled",)
    assert "counts as unlabelled: labels in column 'label' are 3 different values from 1 to 5" in caplog.text
    with pytest.raises(InputError, match=r"labels in column 'label' are 3 different values from 1 to 5"):
        load_images(f"{folder}:train", label_column="label")


def test_a_missing_word_is_a_missing_label(tmp_path: Path) -> None:
    for missing in (None, ""):
        folder = parquet_folder(tmp_path / repr(missing), ["a", "b", missing], ["a", "b"])
        with pytest.raises(InputError, match=r"1 rows of split 'train' have no label \(null\) .*, the first is row 2,"):
            load_splits(str(folder))


def test_words_in_two_unicode_forms_are_one_class_across_splits(tmp_path: Path) -> None:
    splits = load_splits(str(parquet_folder(tmp_path / "d", [CAT_NFC, "dog"], ["dog", CAT_NFD])))
    assert (splits.label_names, splits.test["label"][:]) == ((CAT_NFC, "dog"), [1, 0])


@pytest.mark.parametrize("hidden", [None, ""])
def test_hidden_words_give_way_to_the_validation_split(tmp_path: Path, hidden: str | None) -> None:
    folder = parquet_folder(tmp_path / "d", ["b", "a"], ["a", "b"])
    (folder / "test.parquet").rename(folder / "val.parquet")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    rows = datasets.Dataset.from_dict({"image": [None], "label": [hidden]}, features=features)
    rows.to_parquet(folder / "test.parquet")
    assert load_splits(str(folder)).test["label"][:] == [0, 1]
    (folder / "val.parquet").unlink()
    with pytest.raises(InputError, match=r"1 rows of split 'test' have no label \(null\) in column 'label'"):
        load_splits(str(folder))
