"""A fingerprint is that of the images, not of their place, and changes with them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from cosify.data import Fingerprint, load_splits
from cosify.data import fingerprint as module
from tests.data.folders import image_folder, parquet_folder, picture


def of(folder: Path, streaming: bool = False) -> Fingerprint:
    return Fingerprint.of(load_splits(str(folder), streaming=streaming, num_train=4 if streaming else None))


def add_image(folder: Path) -> None:
    picture(1000).save(folder / "train" / "dog" / "new.png")


def rename_class(folder: Path) -> None:
    for split in ("train", "test"):
        (folder / split / "cat").rename(folder / split / "cow")


def rename_to_the_end(folder: Path) -> None:
    for split in ("train", "test"):
        (folder / split / "cat").rename(folder / split / "zebra")


def add_class(folder: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(folder / split / "cat", folder / split / "ape")


def replace_test(folder: Path) -> None:
    for number, file in enumerate((folder / "test").rglob("*.png")):
        picture(2000 + number).save(file)


def relabel(folder: Path) -> None:
    (folder / "train" / "cat" / "0.png").rename(folder / "train" / "dog" / "9.png")


def swap_labels(folder: Path) -> None:
    for split in ("train", "test"):
        for old, new in (("cat", "aside"), ("dog", "cat"), ("aside", "dog")):
            (folder / split / old).rename(folder / split / new)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (add_image, ["split 'train' has 9 images (8 before)"]),
        (rename_class, ["class 0 is 'cow' ('cat' before)"]),
        (
            rename_to_the_end,
            [
                "class 0 is 'dog' ('cat' before), 1 is 'zebra' ('dog' before)",
                "some images of split 'train' are different",
                "some images of split 'test' are different",
            ],
        ),
        (
            add_class,
            [
                "there are 3 classes (2 before): new 'ape'",
                "split 'train' has 12 images (8 before)",
                "split 'test' has 12 images (8 before)",
            ],
        ),
        (replace_test, ["some images of split 'test' are different"]),
        (relabel, ["split 'train' has 3 images of class 'cat' (4 before), 5 images of class 'dog' (4 before)"]),
        (swap_labels, ["some images of split 'train' are different", "some images of split 'test' are different"]),
    ],
)
def test_what_changed_is_said(change: Callable[[Path], None], expected: list[str], tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "d")
    before = of(folder)
    change(folder)
    assert before.changes(of(folder)) == expected


def test_place_and_times_do_not_matter_and_the_record_comes_back(tmp_path: Path) -> None:
    before = of(image_folder(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere" / "b")
    now = of(tmp_path / "elsewhere" / "b")
    assert now == before
    assert Fingerprint.of_record(json.loads(json.dumps(before.record()))) == before
    assert before.changes(now) == []


def test_permuted_labels_of_a_table(tmp_path: Path) -> None:
    before = of(parquet_folder(tmp_path / "a", [0, 1, 1, 0], [0, 1], names=["cat", "dog"]))
    shuffled = of(parquet_folder(tmp_path / "b", [1, 0, 0, 1], [0, 1], names=["cat", "dog"]))
    assert before.changes(shuffled) == ["the images of split 'train' have other labels, or come in another order"]
    assert before.changes(shuffled, ["test"]) == []
    names = of(parquet_folder(tmp_path / "c", [0, 1, 1, 0], [0, 1], names=["dog", "cat"]))
    assert before.changes(names) == ["class 0 is 'dog' ('cat' before), 1 is 'cat' ('dog' before)"]


def test_a_stream_is_known_by_its_names_and_its_beginning(tmp_path: Path) -> None:
    folder = parquet_folder(tmp_path / "a", [0, 1, 1, 0], [0, 1], names=["cat", "dog"])
    before = of(folder, streaming=True)
    assert before.changes(of(folder, streaming=True)) == []
    assert before.train.counts is None
    other = of(parquet_folder(tmp_path / "b", [0, 1, 1, 0], [1, 0], names=["cat", "dog"]), streaming=True)
    assert before.changes(other) == ["some images of split 'test' are different"]
    named = of(parquet_folder(tmp_path / "c", [0, 1, 1, 0], [0, 1], names=["cat", "cow"]), streaming=True)
    assert before.changes(named) == ["class 1 is 'cow' ('dog' before)"]


def test_few_files_are_read_of_each_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits, read = load_splits(str(image_folder(tmp_path / "d", per_class=100))), []
    whole = module._bytes
    monkeypatch.setattr(module, "_bytes", lambda cell: read.append(cell["path"]) or whole(cell))
    Fingerprint.of(splits)
    assert len(read) == len(set(read)) == 2 * 50  # every fourth of 200
    assert max(Path(path).stem for path in read) > "9", "the beginning alone"


def test_sets_that_are_made_in_memory_are_known_by_their_labels(tmp_path: Path) -> None:
    splits = load_splits("digits")
    found = Fingerprint.of(splits, files=False)
    assert (found.train.sample, found.test.sample) == (None, None)
    assert sum(found.train.counts or ()) == splits.num_train
    assert found.changes(Fingerprint.of(splits.limit_train(100), files=False)) == [
        f"split 'train' has 100 images ({splits.num_train} before)"
    ]


def test_unreadable_files_are_left_to_the_pipeline(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "d")
    splits = load_splits(str(folder))
    before = Fingerprint.of(splits)
    (folder / "test" / "cat" / "0.png").unlink()
    assert before.changes(Fingerprint.of(splits)) == ["some images of split 'test' are different"]
    assert replace(before, test=Fingerprint.of(splits).test) != before
    Image.new("RGB", (6, 6)).save(folder / "test" / "cat" / "0.png")
    assert before != Fingerprint.of(splits)
