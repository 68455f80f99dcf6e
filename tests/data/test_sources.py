"""From a name or a path to splits, and every way in which that fails."""

import logging
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from cosify.data import (
    BUILT_IN,
    DeviceData,
    PipelineSettings,
    Preprocessing,
    held_out_mask,
    load_images,
    load_splits,
    open_data,
    short_name,
    sources,
)
from cosify.errors import InputError
from tests.data.folders import CIFAR100, image_folder, parquet_folder


def test_digits_are_split_once_and_for_all() -> None:
    splits = load_splits("digits")
    assert (len(splits.train), len(splits.test)) == (splits.num_train, splits.num_test) == (1200, 597)
    assert not splits.streaming
    assert splits.label_names == tuple("0123456789")
    train, test = (np.array(split["label"][:]) for split in (splits.train, splits.test))
    share = np.bincount(train) / 1200 - np.bincount(test) / 597
    assert abs(share).max() < 0.002, "not stratified"
    assert train[:8].tolist() == load_splits("digits").train["label"][:8]
    first = np.asarray(splits.test[0]["image"])
    assert first.shape == (8, 8)
    assert first.max() == 255


def test_parquet_folder(tmp_path: Path) -> None:
    splits = load_splits(str(parquet_folder(tmp_path / "d", [0, 1, 2, 0], [2, 1], names=["a", "b", "c"])))
    assert (len(splits.train), len(splits.test)) == (4, 2)
    assert (splits.image_column, splits.label_column, splits.label_names) == ("image", "label", ("a", "b", "c"))


def test_plain_integers_are_classes_by_number(tmp_path: Path) -> None:
    splits = load_splits(str(parquet_folder(tmp_path / "d", [0, 2, 1], [1], columns=("photo", "target"))))
    assert (splits.image_column, splits.label_column, splits.label_names) == ("photo", "target", ("0", "1", "2"))


def test_image_folder(tmp_path: Path) -> None:
    splits = load_splits(str(image_folder(tmp_path / "d")))
    assert (len(splits.train), len(splits.test), splits.label_names) == (8, 8, ("cat", "dog"))


def test_cifar100() -> None:
    if not CIFAR100.is_dir():
        pytest.skip(f"{CIFAR100} is not there")
    splits = load_splits(str(CIFAR100))
    assert (len(splits.train), len(splits.test), len(splits.label_names)) == (50_000, 10_000, 100)
    assert splits.label_names[0] == "apple"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("/data/cifar10", "cifar10"),
        ("org/cifar10:test", "cifar10-test"),
        ("lists/Places_LT@/data/places", "Places_LT"),
        ("lists/Places_LT@/data/places:val", "Places_LT-val"),
    ],
)
def test_names_of_sets(data: str, name: str) -> None:
    assert short_name(data) == name


def test_a_folder_may_have_an_at(tmp_path: Path) -> None:
    (tmp_path / "user@host" / "faces").mkdir(parents=True)
    assert short_name(str(tmp_path / "user@host" / "faces")) == "faces"
    for name in ("A_train.txt", "A_test.txt"):
        (tmp_path / "user@host" / name).write_text("a.png 0\n", encoding="utf-8")
    for name in ("A", f"A@{tmp_path}/user@host"):
        assert short_name(str(tmp_path / "user@host" / name)) == "A"


def test_limit_train_is_the_same_for_every_run() -> None:
    first, second = (load_splits("digits").limit_train(50) for _ in range(2))
    assert first.train["label"][:] == second.train["label"][:]
    assert len(first.train) == first.num_train == 50
    assert len(first.test) == 597
    assert len(set(first.train["label"][:])) == 10, "a head slice of a sorted set would miss classes"
    with pytest.raises(
        ValueError, match="limit_train is 1201, expected 1 to 1200, the size of the training split; drop"
    ):
        load_splits("digits").limit_train(1201)


def test_a_file_is_told_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").touch()
    with pytest.raises(ValueError, match=r"train.parquet' is a file, expected the folder that it lies in; write '/"):
        load_splits(str(tmp_path / "train.parquet"))


def test_unknown_path() -> None:
    with pytest.raises(
        ValueError, match=r"data 'no/such' is no existing folder, none of \['digits', 'synthetic', 'two-digits'\],"
    ):
        load_splits("no/such")


def test_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"holds \['notes.txt'\], expected train.parquet and test.parquet, or train/"):
        load_splits(str(tmp_path))


def test_missing_test_split(tmp_path: Path) -> None:
    folder = parquet_folder(tmp_path / "d", [0, 1], [0])
    (folder / "test.parquet").unlink()
    with pytest.raises(ValueError, match=r"has the splits \['train'\], expected 'train' and one of \['test', 'valid"):
        load_splits(str(folder))


def test_empty_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = parquet_folder(tmp_path / "d", [0, 1], [], names=["a", "b"])
    with pytest.raises(
        ValueError, match=r"cannot be loaded as parquet .*test.*at least one image in every split; check"
    ):
        load_splits(str(folder))
    digits = load_splits("digits")
    loaded = datasets.DatasetDict({"train": digits.train, "test": digits.test.select([])})
    monkeypatch.setitem(BUILT_IN, "digits", lambda: loaded)
    with pytest.raises(
        ValueError, match=r"split 'test' of data 'digits' is empty, expected at least one image; check its"
    ):
        load_splits("digits")


def test_missing_columns(tmp_path: Path) -> None:
    folder = str(parquet_folder(tmp_path / "d", [0, 1], [0], columns=("image", "kind")))
    with pytest.raises(
        ValueError, match=r"found no label column among \['image', 'kind'\], expected one; name it with --la"
    ):
        load_splits(folder)
    with pytest.raises(ValueError, match=r"split 'train' has no column 'photo', expected one of \['image', 'kind'\]"):
        load_splits(folder, image_column="photo")
    assert load_splits(folder, label_column="kind").label_names == ("0", "1")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [1, 2, 3],
            r"labels in column 'label' are 3 different values from 1 to 3, expected every index 0..C-1; number",
        ),
        ([0, 2, 2], r"2 different values from 0 to 2, expected every index"),
        ([-1, 0, 1], r"3 different values from -1 to 1, expected every index"),
        ([0.5, 1.0, 1.0], r"holds values such as '0.5', expected class indices 0..C-1, or words, the names of the cl"),
    ],
)
def test_labels_that_are_no_indices(tmp_path: Path, labels: list[object], message: str) -> None:
    folder = parquet_folder(tmp_path / "d", labels, labels)
    with pytest.raises(ValueError, match=message):
        load_splits(str(folder))


def test_a_stream_reads_the_same_rows(tmp_path: Path) -> None:
    labels = [3, 0, 2, 1, 0, 1, 2]
    folder = str(parquet_folder(tmp_path / "d", labels, [1, 2], names=["a", "b", "c", "d"]))
    splits = load_splits(folder, streaming=True, num_train=7)
    assert isinstance(splits.train, datasets.IterableDataset)
    assert (splits.streaming, splits.num_train, splits.num_test) == (True, 7, None)
    assert (splits.image_column, splits.label_column, splits.label_names) == ("image", "label", ("a", "b", "c", "d"))
    assert [row["label"] for row in splits.train] == labels
    assert [row["label"] for row in splits.split("test")] == [1, 2]
    assert splits.limit_train(3).num_train == 3


def test_a_part_of_a_sorted_stream_has_all_classes_and_always_the_same_rows(tmp_path: Path) -> None:
    folder = str(parquet_folder(tmp_path / "d", [0] * 20 + [1] * 20, [0, 1], names=["a", "b"]))
    rows = load_splits(folder, streaming=True, num_train=40).limit_train(8).train
    orders = [rows, rows, *(rows.shuffle(seed=seed) for seed in (1, 2))]
    first, *others = ([row["image"].tobytes() for row in order] for order in orders)
    assert {row["label"] for row in rows} == {0, 1}
    assert len(set(first)) == 8
    assert others[0] == first
    assert all(sorted(other) == sorted(first) for other in others)


def test_a_streamed_image_folder_knows_its_classes(tmp_path: Path) -> None:
    splits = load_splits(str(image_folder(tmp_path / "d")), streaming=True, num_train=8)
    assert splits.label_names == ("cat", "dog")
    assert [row["label"] for row in splits.train] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_stream_needs_its_length_and_its_classes(tmp_path: Path) -> None:
    typed = str(parquet_folder(tmp_path / "typed", [0, 1], [0], names=["a", "b"]))
    with pytest.raises(
        ValueError, match="does not say how many training images it has, expected num_train in the recipe: the length"
    ):
        load_splits(typed, streaming=True)
    plain = str(parquet_folder(tmp_path / "plain", [0, 1], [0]))
    with pytest.raises(
        ValueError,
        match=r"column 'label' of the stream is Value\('int64'\), expected ClassLabel: .*, or drop streaming",
    ):
        load_splits(plain, streaming=True, num_train=2)
    with pytest.raises(ValueError, match=r"streaming is on, but data 'digits' is needed in memory; drop streaming"):
        load_splits("digits", streaming=True)


def test_a_stream_that_says_its_length() -> None:
    rows = {"image": [b"x"], "label": [0]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a"])})
    stream = datasets.Dataset.from_dict(rows, features=features).to_iterable_dataset()
    stream.info.splits = datasets.SplitDict({"train": datasets.SplitInfo("train", num_examples=41)})
    assert sources._streamed_length(stream, None) == 41
    assert sources._streamed_length(stream, 5) == 5, "what the recipe says goes first"


@pytest.mark.parametrize("hidden", [-1, None])
@pytest.mark.parametrize("name", ["validation", "val"])
def test_hidden_test_labels_give_way_to_the_validation_split(name: str, hidden: int | None, tmp_path: Path) -> None:
    names = None if hidden == -1 else ["a", "b"]
    folder = parquet_folder(tmp_path / "d", [0, 1, 0, 1], [hidden, hidden], names=names)
    other = parquet_folder(tmp_path / "other", [0, 1], [1, 0, 1], names=names)
    (other / "test.parquet").rename(folder / f"{name}.parquet")
    assert load_splits(str(folder)).test["label"][:] == [1, 0, 1]
    if hidden == -1:
        (folder / f"{name}.parquet").unlink()
        assert load_splits(str(folder)).test["label"][:] == [-1, -1], "decoding then says what is wrong"


def test_one_split_alone(tmp_path: Path) -> None:
    splits = load_splits("digits")
    for name, size in (("train", 1200), ("test", 597)):
        alone = splits.only(name)
        assert (len(alone.test), alone.num_train) == (size, 1)
        assert alone.test[0]["label"] == alone.train[0]["label"] == splits.split(name)[0]["label"]
    few = splits.only("test", 30)
    assert len(few.test) == 30
    assert few.test["label"][:] == splits.only("test", 30).test["label"][:] != splits.test["label"][:30]
    splits.test.to_parquet(tmp_path / "test.parquet")
    for data in (str(tmp_path), f"{tmp_path}:test", "digits", "digits:test"):
        found = load_images(data)
        assert found.label_names == splits.label_names
        assert found.test["label"][:] == splits.test["label"][:]
    assert len(load_images("digits:train").test) == 1200


def test_images_alone_are_a_set(tmp_path: Path) -> None:
    image_folder(tmp_path / "classes")
    flat = tmp_path / "flat"
    flat.mkdir()
    for index, file in enumerate(sorted((tmp_path / "classes").rglob("*.png"))):
        (flat / f"{index}.png").write_bytes(file.read_bytes())
    found = load_images(str(flat))
    assert (len(found.test), found.label_names) == (16, ("unlabelled",))
    assert set(found.test["label"][:]) == {0}
    shutil.rmtree(tmp_path / "classes" / "train")
    assert load_images(str(tmp_path / "classes")).label_names == ("cat", "dog")


def test_splits_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has the splits \['test', 'train'\], expected 'val'; name one of these"):
        load_images("digits:val")
    with pytest.raises(ValueError, match=r"holds \[\], expected train.parquet and test.parquet, or train/"):
        load_images(str(tmp_path))


def test_one_split_is_divided_as_a_probe_divides_it(tmp_path: Path) -> None:
    names = [f"class {index}" for index in range(7)]
    folder = parquet_folder(tmp_path / "d", [0] * 3, [5, 2] * 10 + [6] * 5, names=names)
    splits = load_splits(f"{folder}:test")
    assert splits.label_names == ("class 2", "class 5", "class 6")
    assert np.bincount(splits.test["label"][:]).tolist() == [2, 2, 1]
    assert np.bincount(splits.train["label"][:]).tolist() == [8, 8, 4]
    assert splits.num_train == len(splits.train)
    rows = load_images(f"{folder}:test").test
    labels = torch.from_numpy(np.unique(np.asarray(rows["label"][:]), return_inverse=True)[1])
    tests = rows.select(np.flatnonzero(held_out_mask(labels, 0.2, 0).numpy()))
    for mine, other in zip(splits.test["image"], tests["image"], strict=True):
        assert np.array_equal(np.asarray(mine), np.asarray(other))
    with pytest.raises(ValueError, match="has 3 images of 1 classes, expected two classes or more"):
        load_splits(f"{folder}:train")
    with pytest.raises(ValueError, match=r"streaming is on, but data .* is needed in memory"):
        load_splits(f"{folder}:test", streaming=True)
    with pytest.raises(ValueError, match="data is 'digits:', expected DATA or DATA:SPLIT"):
        load_splits("digits:")
    hidden = parquet_folder(tmp_path / "hidden", [0], [-1, 1, 0, 1, 0, 1], columns=("image", "label"))
    with pytest.raises(ValueError, match=r"hides labels behind -1|from -1"):
        load_splits(f"{hidden}:test")


def test_a_built_in_set_is_known_by_its_splits_too(tmp_path: Path) -> None:
    colon = parquet_folder(tmp_path / "a:b", [0, 1], [0, 1] * 5)
    assert len(load_splits(f"{colon}:test").test) == 2
    assert sources.base_and_split(f"{colon}") == (str(colon), "")
    assert sources.base_and_split("hf://datasets/x") == ("hf://datasets/x", "")
    splits = load_splits("digits:train")
    data = open_data(
        splits, PipelineSettings(), Preprocessing(None, 32), data="digits:train", device=torch.device("cpu")
    )
    assert isinstance(data, DeviceData)
    assert data.augmentation == "crop", "text must not be mirrored"


def test_rows_without_a_label_are_named(tmp_path: Path) -> None:
    message = r"1 rows of split '{}' have no label \(null\) in column 'label', the first is row {}, expected a label in"
    for names in (["a", "b"], None):
        folder = parquet_folder(tmp_path / f"train {names}", [0, 1, None], [0, 1], names=names)
        with pytest.raises(InputError, match=message.format("train", 2)):
            load_splits(str(folder))
        folder = parquet_folder(tmp_path / f"test {names}", [0, 1], [1, None, 0], names=names)
        for load in (load_splits, load_images):
            with pytest.raises(InputError, match=message.format("test", 1)):
                load(str(folder))
    with pytest.raises(InputError, match=message.format("test", 1)):
        load_splits(f"{folder}:test")


def test_labels_are_found_by_one_rule(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    typed = str(
        parquet_folder(tmp_path / "typed", [0, 1], [1, 0, 1], names=["cat", "dog"], columns=("image", "species"))
    )
    both, one = load_splits(typed), load_images(typed)
    assert both.label_column == one.label_column == "species"
    assert both.label_names == one.label_names == ("cat", "dog")
    assert both.test["species"][:] == one.test["species"][:] == [1, 0, 1]
    two = datasets.load_dataset("parquet", data_files=f"{typed}/test.parquet", split="train")
    two = two.add_column("genus", [0, 0, 0], feature=datasets.ClassLabel(names=["x"]))
    two.to_parquet(f"{typed}/test.parquet")
    (tmp_path / "typed" / "train.parquet").unlink()
    with caplog.at_level(logging.WARNING, logger="cosify"):
        assert load_images(typed).label_names == ("unlabelled",)
    assert caplog.messages == [
        f"data {typed} counts as unlabelled: any of its columns ['species', 'genus'] may be the label"
    ]
    assert load_images(typed, label_column="species").label_names == ("cat", "dog")
    with pytest.raises(InputError, match=r"found several label columns, \['species', 'genus'\]"):
        load_splits(f"{typed}:test")


def test_classes_of_one_image_train(tmp_path: Path) -> None:
    names = [f"class {index:02}" for index in range(50)]
    labels = [*(index for index in range(20) for _ in range(10)), *range(20, 50)]
    splits = load_splits(f"{parquet_folder(tmp_path / 'd', [0], labels, names=names)}:test")
    assert np.bincount(splits.train["label"][:], minlength=50).tolist() == [8] * 20 + [1] * 30
    assert np.bincount(splits.test["label"][:], minlength=50).tolist() == [2] * 20 + [0] * 30
