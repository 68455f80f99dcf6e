"""From a user's folder to its splits: what is read of it, what is left out, and in what words it is refused."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
import pytest

from cosify.data import Splits, load_images, load_splits
from cosify.data.folders import open_folder
from cosify.errors import InputError
from tests.data.folders import parquet_folder, picture

CAT_NFC, CAT_NFD = "caf\u00e9", "cafe\u0301"


def write(folder: Path, tree: Mapping[str, int]) -> Path:
    """Write so many images into each place below a folder, no two alike."""
    seed = 0
    for place, num in tree.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        for index in range(num):
            seed += 1
            picture(seed).save(folder / place / f"{index}.png")
    return folder


def splits_folder(folder: Path, train: Sequence[str], test: Sequence[str], num: tuple[int, int] = (3, 2)) -> Path:
    places = {f"train/{name}": num[0] for name in train} | {f"test/{name}": num[1] for name in test}
    return write(folder, places)


def counts(splits: Splits) -> tuple[int, int]:
    return len(splits.train), len(splits.test)


def paths(rows: datasets.Dataset) -> list[str]:
    return [cell["path"] for cell in rows.cast_column("image", datasets.Image(decode=False))["image"]]


@pytest.mark.parametrize("name", ["train", "test", "evaluation", "test_tube", "training shoe", "dev", "a[1]", "b ?*"])
def test_a_class_may_be_called_like_a_split(tmp_path: Path, name: str) -> None:
    folder = splits_folder(tmp_path / "d", ["cat", name], ["cat", name])
    for streaming in (False, True):
        splits = load_splits(str(folder), streaming=streaming, num_train=6 if streaming else None)
        for rows, split, num in ((splits.train, "train", 3), (splits.test, "test", 2)):
            labels = [row["label"] for row in rows]
            assert splits.label_names == tuple(sorted(["cat", name]))
            assert labels == [0] * num + [1] * num
            if not streaming:
                assert all(path.startswith(f"{folder}/{split}/") for path in paths(rows))


def test_folders_beside_the_splits_are_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = splits_folder(tmp_path / "d", ["cat", "dog"], ["cat", "dog"])
    write(folder, {"train_backup/cat": 4, "test old/dog": 4, ".hidden/cat": 1, "train/.trash": 1})
    (folder / "train" / "cat" / "notes.txt").write_text("x")
    (folder / "metadata.csv").write_text("file_name,label\ntrain/cat/0.png,bird\n")
    (folder / "train" / "bird").mkdir()
    with caplog.at_level(logging.WARNING, logger="cosify"):
        splits = load_splits(str(folder))
    assert counts(splits) == (6, 4)
    assert splits.left_out == {
        "folder": {"beside the splits": 3},
        "train": {"hidden": 1, "no images by their extension": 1, "empty folders": 1},
    }
    left_out = "metadata.csv, test old, train_backup are left out"
    assert f"folder {folder}: test, train are read, {left_out}" in caplog.messages
    assert any(
        "1 files that are no images by their extension" in text and "notes.txt" in text for text in caplog.messages
    )
    assert any("1 folders without images are left out, such as" in text and "bird" in text for text in caplog.messages)
    assert len(caplog.messages) == 3


def test_a_second_held_out_split_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = splits_folder(tmp_path / "d", ["cat", "dog"], ["cat", "dog"])
    write(folder, {"val/cat": 3, "val/dog": 2, "val/.trash": 1})
    with caplog.at_level(logging.WARNING, logger="cosify"):
        splits = load_splits(str(folder))
    assert counts(splits) == (6, 4)
    assert splits.left_out == {"val": {"hidden": 1, "rows of a split that is not used": 5}}
    assert caplog.messages == [
        f"data {folder}: numbers are of split 'test', and 'val' is not used;"
        " a run with test_split=val is evaluated on it"
    ]
    streamed = load_splits(str(folder), streaming=True, num_train=6)
    assert (streamed.num_train, streamed.left_out) == (6, {"val": {"hidden": 1}})
    caplog.clear()
    for name in ("val", "validation"):
        chosen = load_splits(str(folder), test_split=name)
        assert counts(chosen) == (6, 5)
        assert chosen.left_out["test"] == {"rows of a split that is not used": 4}
    assert caplog.messages == []
    with pytest.raises(InputError, match=r"has the splits \['test', 'val'\], expected 'final'; name one of these"):
        load_splits(str(folder), test_split="final")
    with pytest.raises(InputError, match=r"test_split is 'val' and data '.*:train' one split, expected one of the two"):
        load_splits(f"{folder}:train", test_split="val")


def test_classes_without_splits_are_read_whole(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", {"plane": 5, "train": 5, "car": 5})
    found = load_images(str(folder))
    assert (len(found.test), found.label_names) == (15, ("car", "plane", "train"))
    assert np.bincount(found.test["label"][:]).tolist() == [5, 5, 5]
    with pytest.raises(InputError, match=r"expected 'train' and one of .*, or name '.*/d:train', of which a fifth"):
        load_splits(str(folder))
    splits = load_splits(f"{folder}:train")
    assert (counts(splits), splits.label_names) == ((12, 3), ("car", "plane", "train"))
    alone = write(tmp_path / "alone", {"train/cat": 5, "train/dog": 5})
    with pytest.raises(InputError, match=r"has the splits \['train'\], .*, or name '.*/alone:train', of which a fifth"):
        load_splits(str(alone))
    assert counts(load_splits(f"{alone}:train")) == (8, 2)


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
def test_a_validation_split_serves_as_test(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "d", {"train/a": 2, "train/b": 2, f"{name}/a": 1, f"{name}/b": 3})
    assert counts(load_splits(str(folder))) == (4, 4)
    for wanted in (name, "val", "validation"):
        assert len(load_images(f"{folder}:{wanted}").test) == 4
    write(folder, {"test/a": 1, "test/b": 1})
    assert counts(load_splits(str(folder))) == (4, 2)
    write(folder, {"valid/a": 1, "val/a": 1})
    with pytest.raises(InputError, match=r"names of one validation split, expected one of them; move the others"):
        load_splits(str(folder))


def test_rows_and_classes_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = ["b", "a", "Z", "10", "2"]
    folder = splits_folder(tmp_path / "d", names, names[:3])
    (folder / "train" / "a" / "0.png").rename(folder / "train" / "a" / "UP.PNG")
    splits = load_splits(str(folder))
    assert splits.label_names == ("10", "2", "Z", "a", "b")
    assert paths(splits.train) == sorted(paths(splits.train))
    assert any(path.endswith("a/UP.PNG") for path in paths(splits.train))
    assert [Path(path).parent.name for path in paths(splits.test)] == [
        splits.label_names[label] for label in splits.test["label"][:]
    ]
    assert load_images(f"{folder}:test").label_names == splits.label_names, "labels of one split are those of training"


def test_links_are_followed_once(tmp_path: Path) -> None:
    folder = splits_folder(tmp_path / "d", ["cat", "dog"], [])
    elsewhere = write(tmp_path / "elsewhere", {"cat": 2, "dog": 2})
    (folder / "test").symlink_to(elsewhere)
    (folder / "train" / "cat" / "loop").symlink_to(folder / "train")
    splits = load_splits(str(folder))
    assert (counts(splits), splits.label_names) == ((6, 4), ("cat", "dog"))
    assert paths(splits.test)[0] == f"{folder}/test/cat/0.png"
    (folder / "train" / "dog" / "gone.png").symlink_to(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        load_splits(str(folder))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            {"train": 1},
            r"image '.*/train/0.png' lies in no folder of a class, expected every image in the folder of its",
        ),
        (
            {"train/cat/more": 1},
            r"images '.*/train/.*/2.png' and '.*/train/cat/more/0.png' lie in folders that are not",
        ),
        (
            {"test/cat/more": 1},
            r"'.*/test/cat/more/0.png' lie in folders that are not beside each other, expected every",
        ),
    ],
)
def test_images_out_of_place_are_named(tmp_path: Path, extra: Mapping[str, int], message: str) -> None:
    folder = write(splits_folder(tmp_path / "d", ["cat", "dog"], ["cat", "dog"]), extra)
    with pytest.raises(InputError, match=message):
        load_splits(str(folder))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_test_split_without_folders_is_hidden_where_a_validation_split_has_classes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, streaming: bool
) -> None:
    tree = {"train/cat": 3, "train/dog": 3, "val/cat": 1, "val/dog": 2, "test": 4}
    folder = write(tmp_path / "d", tree)
    with caplog.at_level(logging.WARNING, logger="cosify"):
        splits = load_splits(str(folder), streaming=streaming, num_train=6 if streaming else None)
    assert [row["label"] for row in splits.test] == [0, 1, 1]
    assert caplog.messages == [f"data {folder}: numbers are of split 'val', and 'test' is not used; it has no labels"]
    assert counts(load_splits(f"{folder}:train")) == (5, 1)
    write(folder, {"test/cat": 1})
    with pytest.raises(InputError, match=r"image '.*/test/..png' lies in no folder of a class, expected every image"):
        load_splits(str(folder))


def test_a_task_whose_images_are_out_of_place_is_unlabelled_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(tmp_path / "d", {"cat": 2, "dog": 2, ".": 1})
    with caplog.at_level(logging.WARNING, logger="cosify"):
        found = load_images(str(folder))
    assert (len(found.test), found.label_names) == (5, ("unlabelled",))
    assert caplog.messages == [
        f"image '{folder}/0.png' lies in no folder of a class: the images of {folder} count as unlabelled"
    ]
    with pytest.raises(InputError, match="lies in no folder of a class, expected every image"):
        load_splits(f"{folder}:train")
    wrapped = write(tmp_path / "wrapped", {"images/cat": 1, "images/dog": 1})
    assert load_images(str(wrapped)).label_names == ("cat", "dog")


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    folder = splits_folder(tmp_path / "d", ["cat"], ["cat"])
    with pytest.raises(InputError, match=r"has one class, \['cat'\], expected two or more; add images of another"):
        load_splits(str(folder))
    assert load_images(str(folder)).label_names == ("cat",)


def test_folders_that_can_be_read_in_two_ways_or_not_at_all(tmp_path: Path) -> None:
    folder = splits_folder(tmp_path / "d", ["cat", "dog"], ["cat"])
    (folder / "test" / "cat" / "0.png").unlink()
    (folder / "test" / "cat" / "1.png").unlink()
    with pytest.raises(InputError, match=r"folder '.*/d/test' holds \['cat'\], expected images; arrange it so"):
        load_splits(str(folder))
    (folder / "train.parquet").write_bytes(b"x")
    with pytest.raises(InputError, match=r"holds train.parquet and t.*/, expected either parquet files or folders"):
        load_splits(str(folder))


def test_names_of_parquet_files_are_taken_to_the_letter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = parquet_folder(tmp_path / "a [b]*", [0, 1], [1, 0], names=["x", "y"])
    other = parquet_folder(tmp_path / "other", [0, 1, 1], [0], names=["x", "y"])
    for name in ("train-backup", "testing", "train_2"):
        (folder / f"{name}.parquet").write_bytes((other / "train.parquet").read_bytes())
    with caplog.at_level(logging.WARNING, logger="cosify"):
        assert counts(load_splits(str(folder))) == (2, 2)
    assert caplog.messages == [
        f"folder {folder}: test.parquet, train.parquet are read, testing.parquet, train-backup.parquet, train_2.parquet"
        " are left out"
    ]
    (folder / "train-00000-of-00002.parquet").write_bytes((other / "train.parquet").read_bytes())
    with pytest.raises(InputError, match=r"expected the files of one set for the split 'train'; move"):
        load_splits(str(folder))
    (folder / "train.parquet").unlink()
    with pytest.raises(InputError, match=r"holds 1 of the 2 files train-\*-of-00002.parquet, expected all of them"):
        load_splits(str(folder))
    (folder / "train-00001-of-00002.parquet").write_bytes((other / "train.parquet").read_bytes())
    assert counts(load_splits(str(folder))) == (6, 2)


def test_damaged_parquet_is_the_users_to_mend(tmp_path: Path) -> None:
    folder = parquet_folder(tmp_path / "d", [0, 1], [1, 0], names=["x", "y"])
    (folder / "test.parquet").write_bytes(b"no parquet")
    with pytest.raises(
        InputError, match=r"file '.*/d/test.parquet' cannot be read as parquet \(ArrowInvalid: .*\), expected a whole"
    ):
        load_splits(str(folder))


def test_metadata_beside_images_says_their_labels(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", {"train": 3, "test": 2})
    for split, rows in (("train", {0: 1, 2: 0, 1: 2}), ("test", {1: 2, 0: 1})):
        lines = [json.dumps({"file_name": f"{image}.png", "label": label}) for image, label in rows.items()]
        (folder / split / "metadata.jsonl").write_text("\n".join(lines))
    splits = load_splits(str(folder))
    assert (splits.train["label"][:], splits.test["label"][:]) == ([1, 0, 2], [2, 1])
    assert [Path(path).name for path in paths(splits.train)] == ["0.png", "2.png", "1.png"]
    first = np.asarray(splits.train[1]["image"])
    assert np.array_equal(first, np.asarray(picture(3)))
    before = splits.test._fingerprint
    assert load_splits(str(folder)).test._fingerprint == before
    picture(77).save(folder / "test" / "0.png")
    assert load_splits(str(folder)).test._fingerprint != before
    (folder / "test" / "metadata.jsonl").unlink()
    with pytest.raises(InputError, match=r"has metadata for some splits and none for \['test'\], expected it for all"):
        load_splits(str(folder))


def test_features_are_cached_under_the_files_that_were_read(tmp_path: Path) -> None:
    folder = splits_folder(tmp_path / "d", ["cat", "dog"], ["cat", "dog"])
    before = load_splits(str(folder)).test._fingerprint
    assert load_splits(str(folder)).test._fingerprint == before == load_splits(f"{folder}/").test._fingerprint
    picture(99).save(folder / "train" / "cat" / "0.png")
    assert load_splits(str(folder)).test._fingerprint == before, "another split"
    changed = folder / "test" / "cat" / "0.png"
    status = changed.stat()
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert load_splits(str(folder)).test._fingerprint != before


@pytest.mark.parametrize("streaming", [False, True])
def test_images_that_the_metadata_do_not_name_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, streaming: bool
) -> None:
    folder = write(tmp_path / "d [1]", {"train/sub": 2, "train": 3, "test": 2})
    for split, images in (("train", ["1.png", "sub/0.png", "./0.png"]), ("test", ["0.png", "1.png"])):
        rows = {"file_name": images, "label": [0, 1, 1][: len(images)]}
        features = datasets.Features(
            {"file_name": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])}
        )
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / split / "metadata.parquet")
    with caplog.at_level(logging.WARNING, logger="cosify"):
        opened = open_folder(folder, streaming=streaming)
    assert opened.left_out == {"train": {"images not in the metadata": 2}}
    assert caplog.messages == [
        f"folder {folder}/train: 2 of 5 images are not named in the metadata and are left out, such as"
        f" {folder}/train/2.png"
    ]
    assert len(list(opened["train"])) == 3


def test_captions_beside_class_folders_leave_the_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = splits_folder(tmp_path / "d", ["cat", "dog"], ["cat", "dog"])
    for split in ("train", "test"):
        lines = [json.dumps({"file_name": f"{name}/0.png", "text": name[0]}) for name in ("cat", "dog")]
        (folder / split / "metadata.jsonl").write_text("\n".join(lines))
    with caplog.at_level(logging.WARNING, logger="cosify"):
        splits = load_splits(str(folder))
    assert (counts(splits), splits.label_names) == ((6, 4), ("cat", "dog"))
    assert caplog.messages == [
        f"folder {folder}: its metadata has no labels, only text; it is left out, and the folders of the images count"
        " as classes"
    ]
    asked = load_splits(str(folder), label_column="text")
    assert (counts(asked), asked.label_names) == ((2, 2), ("c", "d"))
    assert load_images(f"{folder}:test").label_names == ("cat", "dog")
