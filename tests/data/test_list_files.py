"""Lists of images as a data source."""

import logging
from pathlib import Path

import pytest
import torch

from cosify.data import Fingerprint, load_images, load_splits
from cosify.data.list_files import PUBLISHED, find_lists, read_list
from cosify.evaluation import long_tail_accuracy
from tests.data.folders import ROOT, picture

LISTS = ROOT.parent / "shared" / "data" / "longtail_lists"


def lists(
    folder: Path, train: str = "train/cat/0.png 0\ntrain/dog/1.png 1\ntrain/dog/2 b.png 1\n", test: str = "9.png 1\n"
) -> str:
    """Write two lists and images, and return their prefix."""
    for name in ("train/cat/0.png", "train/dog/1.png", "train/dog/2 b.png", "9.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(int(name[-5]) if name[-5].isdigit() else 2).save(folder / name)
    (folder / "my_train.txt").write_text(train)
    (folder / "my_test.txt").write_text(test)
    return str(folder / "my")


def test_lists_beside_their_images(tmp_path: Path) -> None:
    splits = load_splits(lists(tmp_path))
    assert splits.label_names == ("cat", "dog")
    assert (splits.train["label"][:], splits.test["label"][:]) == ([0, 1, 1], [1])
    assert splits.train[2]["image"].tobytes() == picture(2).tobytes()
    assert splits.test[0]["image"].tobytes() == picture(9).tobytes()
    outliers = load_images(f"{tmp_path / 'my'}:train")
    assert outliers.test["label"][:] == [0, 1, 1]
    assert load_images(str(tmp_path / "my")).test["label"][:] == [1]
    assert load_splits(str(tmp_path / "my"), streaming=True, num_train=3).label_names == ("cat", "dog")


def test_images_elsewhere_and_absolute_paths(tmp_path: Path) -> None:
    lists(tmp_path / "a", test=f"{tmp_path / 'a' / '9.png'} 0\n")
    moved = tmp_path / "b"
    moved.mkdir()
    for name in ("train", "test"):
        (tmp_path / "a" / f"my_{name}.txt").rename(moved / f"{name}.txt")
    for data in (f"{moved}@{tmp_path / 'a'}",):
        assert load_splits(data).test[0]["image"].tobytes() == picture(9).tobytes()
        assert load_images(f"{data}:test").test["label"][:] == [0]
    with pytest.raises(ValueError, match=r"3 of 3 images of list .*train.txt' are not there: .*/b/train/cat/0.png, "):
        load_splits(str(moved))
    with pytest.raises(ValueError, match=r"has its images below '/no/such', which is no folder"):
        load_splits(f"{moved}@/no/such")
    with pytest.raises(ValueError, match=r"means the lists .*nothing_train.txt and .*, which are not there"):
        load_splits(f"{moved / 'nothing'}@{tmp_path}")


def test_missing_images_are_counted_and_the_first_named(tmp_path: Path) -> None:
    prefix = lists(tmp_path, train="".join(f"gone/{index:02}.png {index % 2}\n" for index in range(12)) + "9.png 1\n")
    with pytest.raises(ValueError, match=r"12 of 13 images of list .*gone/00.png, .*gone/09.png, \.\.\., expected"):
        load_splits(prefix)
    assert load_images(f"{prefix}:test").test["label"][:] == [1], "images of other splits are not needed"


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("a.png 0\n\nb.png -1\n", "9.png 0", r"line 3 of list .*my_train.txt' is 'b.png -1', expected 'path label'"),
        ("a.png 0\nb.png x\n", "9.png 0", "line 2 of list .* is 'b.png x'"),
        ("a.png 0\nb.png\n", "9.png 0", "line 2 of list .* is 'b.png'"),
        ("a.png 1.0\n", "9.png 0", "line 1 of list .* is 'a.png 1.0'"),
        ("a.png 0\nb.png 99999999\n", "9.png 0", "line 2 of list .* of at most 7 digits"),
        ("\n\n", "9.png 0", "my_train.txt' is empty, expected lines 'path label'"),
        ("a.png 0\nb.png 2\n", "9.png 0\n9.png 3", r"1 lines of list .*my_test.txt' have labels without .* is line 2"),
        ("a.png 0\nb.png 2\n", "9.png 1", "the first is line 1 with label 1, expected labels of my_train.txt, which"),
    ],
)
def test_lines_that_are_none(train: str, test: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_splits(lists(tmp_path, train, test))


def test_a_class_without_images_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="cosify"):
        splits = load_splits(lists(tmp_path, "train/cat/0.png 0\n9.png 2\n", "train/dog/1.png 2"))
    assert len(splits.label_names) == 3
    assert any("1 of 3 classes have no training images, and cannot be learnt: 1" in each for each in caplog.messages)


def test_what_may_be_meant_otherwise_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prefix = lists(tmp_path, test="9.png 1\ntrain/cat/0.png 0\n")
    with pytest.raises(ValueError, match="is one list, expected what the names of all lists begin with"):
        load_splits(f"{prefix}_train.txt")
    with caplog.at_level(logging.WARNING, logger="cosify"):
        load_splits(prefix)
        assert caplog.messages == ["1 images of list test are training images, such as train/cat/0.png"]
        caplog.clear()
        for name in ("train", "test"):
            (tmp_path / f"my_{name}.txt").rename(tmp_path / f"{name}.txt")
        assert find_lists(str(tmp_path)) is None
        assert "is read, not the lists train.txt, test.txt; write" in caplog.text
    assert find_lists(f"{tmp_path}@{tmp_path}") is not None


def test_repeated_images_are_counted_however_their_paths_are_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prefix = lists(tmp_path, "train/cat/0.png 0\n9.png 1\n./9.png 0\n", "train/../9.png 1\n")
    with caplog.at_level(logging.WARNING, logger="cosify"):
        load_splits(prefix)
    assert caplog.messages == [
        f"1 lines of list {prefix}_train.txt repeat an image that stands above them",
        "1 images of list test are training images, such as 9.png",
        "1 of 2 classes have no test images, so that no accuracy speaks of them: 0",
    ]


def test_paths_with_an_at_and_a_mark_of_the_byte_order(tmp_path: Path) -> None:
    root = tmp_path / "user@host"
    (tmp_path / "l@sts").mkdir()
    lists(root, "train/cat/0.png 0\n9.png 1\n", "train/dog/1.png 1\n")
    for name in ("train", "test"):
        text = (root / f"my_{name}.txt").read_text(encoding="utf-8")
        (tmp_path / "l@sts" / f"my_{name}.txt").write_text(text, encoding="utf-8-sig")
    splits = load_splits(f"{tmp_path / 'l@sts' / 'my'}@{root}")
    assert (len(splits.train), len(splits.test)) == (2, 1)


def test_the_fingerprint_follows_from_lists_and_files(tmp_path: Path) -> None:
    prefix = lists(tmp_path)
    first, again = load_splits(prefix), load_splits(prefix)
    assert first.train._fingerprint == again.train._fingerprint
    assert Fingerprint.of(first) == Fingerprint.of(again)
    picture(77, (9, 9)).save(tmp_path / "train" / "dog" / "1.png")
    assert load_splits(prefix).train._fingerprint != first.train._fingerprint


def test_the_number_of_a_published_list_is_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lists(tmp_path)
    for name in ("train", "test"):
        (tmp_path / f"my_{name}.txt").rename(tmp_path / f"Places_LT_{name}.txt")
    with caplog.at_level(logging.WARNING, logger="cosify"):
        load_splits(str(tmp_path / "Places_LT"))
    assert f"list {tmp_path}/Places_LT_train.txt has 3 images, the published list of that name 62500" in caplog.messages


def test_published_lists() -> None:
    if not LISTS.is_dir():
        pytest.skip(f"{LISTS} is not there")
    for name, splits in PUBLISHED.items():
        for split, num in splits.items():
            file = LISTS / f"{name}_{split}.txt"
            assert not file.is_file() or len(read_list(file)) == num
    found = find_lists(str(LISTS / "Places_LT"))
    assert found is not None
    assert found.label_names[:2] == ["airfield", "airplane_cabin"]
    counts = torch.tensor([label for _, label, _ in found.lines["train"]]).bincount()
    assert (len(counts), int(counts.max()), int(counts.min())) == (365, 4980, 5)
    labels = torch.arange(365)
    kang, oltr = (long_tail_accuracy(labels, labels, counts, thresholds=each).num_classes for each in ("kang", "oltr"))
    assert ((kang[0], kang[2]), (oltr[0], oltr[2])) == ((131, 71), (132, 77))
