"""From the name of a data set, or a path, to its train and test split."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cosify.data.digits import digits
from cosify.data.held_out import TEST_SHARE, held_out_mask
from cosify.data.synthetic import synthetic
from cosify.data.two_digits import two_digits
from cosify.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

BUILT_IN = {"digits": digits, "two-digits": two_digits, "synthetic": synthetic}
TEST_NAMES = ("test", "validation", "valid", "val")
LABEL_NAMES = ("label", "labels", "fine_label", "target")


@dataclass(frozen=True)
class Splits:
    """Images with labels, not decoded yet.

    Attributes:
        train: rows to learn from.
        test: rows to report on; never seen in training.
        image_column: name of the column of images.
        label_column: name of the column of class indices.
        label_names: name of each class, C of them.
        num_train: samples of an epoch.
        streaming: whether rows come one after the other, without a length and without being stored.
    """

    train: "Dataset"
    test: "Dataset"
    image_column: str
    label_column: str
    label_names: tuple[str, ...]
    num_train: int
    streaming: bool = False

    @property
    def num_test(self) -> int | None:
        """Samples of the test split, None for a stream."""
        return None if self.streaming else len(self.test)

    def split(self, name: str) -> "Dataset":
        """Return the split `"train"` or `"test"`."""
        return self.train if name == "train" else self.test

    def only(self, name: str, limit: int | None = None) -> "Splits":
        """Return one split as test split, beside a training split of its first row, to look at it alone.

        Args:
            name: `"train"` or `"test"`.
            limit: most rows, a random but always equal choice of them; None for all, in their order.
        """
        rows = self.split(name)
        if limit is not None and limit < 1:
            raise InputError(f"limit is {limit}, expected 1 or more; drop it for all {len(rows)} images")
        if limit is not None and limit < len(rows):
            rows = rows.shuffle(seed=0).select(range(limit))
        return replace(self, train=rows.select([0]), test=rows, num_train=1)

    def limit_train(self, num_samples: int) -> "Splits":
        """Return the same with a random but always equal choice of `num_samples` rows to train on.

        Raises:
            ValueError: if there are not that many, or none are asked for.
        """
        if not 1 <= num_samples <= self.num_train:
            raise InputError(
                f"limit_train is {num_samples}, expected 1 to {self.num_train}, the size of the training split;"
                " drop the option to use all of it"
            )
        if self.streaming:  # the first ones: a stream has no others without reading it whole
            return replace(self, train=self.train.take(num_samples), num_train=num_samples)
        return replace(self, train=self.train.shuffle(seed=0).select(range(num_samples)), num_train=num_samples)


def base_and_split(data: str) -> tuple[str, str]:
    """Return the data set and the split that `DATA:SPLIT` names, an empty one where none is named.

    Raises:
        ValueError: if the word after the colon is missing.
    """
    base, colon, split = data.rpartition(":")
    if not colon or "://" in data or Path(data).expanduser().exists():
        return data, ""
    if not base or not split:
        raise InputError(f"data is {data!r}, expected DATA or DATA:SPLIT, such as cifar10:test")
    return base, split


def load_splits(
    data: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    streaming: bool = False,
    num_train: int | None = None,
) -> Splits:
    """Find a data set and the columns to use.

    Args:
        data: `"digits"`, `"two-digits"`, `"synthetic"`, a folder with train.parquet and test.parquet (or
            train-*.parquet), a folder with train/CLASS/*.png and test/CLASS/*.png, or the id of a data set on the
            Hugging Face hub.  `DATA:SPLIT` is one split of these, of which a fifth of each class tests and the rest
            trains, as in `cosify.evaluation.transfer`; classes that do not occur in it are dropped.
        image_column: its column of images; default: the only one of that type.
        label_column: its column of class indices; default: the only one of type `ClassLabel`, or one of `LABEL_NAMES`.
        streaming: read rows as they are needed, without storing or even downloading the whole set.
        num_train: rows of a streamed training split that do not say how many they are; an epoch has that many.

    Returns:
        Both splits; a split named validation serves as test where there is no test.

    Raises:
        ValueError: if there is no such data set, split or column, a split is empty, or labels are not 0..C-1.
    """
    base, split = base_and_split(data)
    if streaming and (base in BUILT_IN or split):
        raise InputError(f"streaming is on, but data {data!r} is needed in memory; drop streaming")
    if split:
        return _divided(load_images(data, image_column=image_column, label_column=label_column), data)
    loaded = BUILT_IN[data]() if data in BUILT_IN else _load(data, streaming)
    held_out = [name for name in TEST_NAMES if name in loaded]
    if "train" not in loaded or not held_out:
        raise InputError(
            f"data {data!r} has the splits {sorted(loaded)}, expected 'train' and one of {list(TEST_NAMES)}; give it a"
            " held-out split, so that accuracy is measured on images that were not trained on"
        )
    train = loaded["train"]
    for name in () if streaming else ("train", *held_out):
        if len(loaded[name]) == 0:
            raise InputError(f"split {name!r} of data {data!r} is empty, expected at least one image; check its files")
    image_column = _image_column(train, image_column)
    label_column = _label_column(train, label_column)
    # Some sets hide the labels of their test split behind -1, ImageNet for one.
    labelled = [name for name in held_out if _first(loaded[name], label_column) != -1]
    test_name = (labelled or held_out)[0]
    test = loaded[test_name]
    for column in (image_column, label_column):
        _check_column(test, column, f"split {test_name!r}")
    if not streaming:
        return Splits(train, test, image_column, label_column, _label_names(train, label_column), len(train))
    label_names = _streamed_label_names(train, label_column)
    num_train = _streamed_length(train, num_train)
    return Splits(train, test, image_column, label_column, label_names, num_train, streaming=True)


def load_images(data: str, *, image_column: str | None = None, label_column: str | None = None) -> Splits:
    """Find one split of a data set, to look at it alone: an outlier set, or a task to transfer to.

    Args:
        data: as in `load_splits`, but no training split is needed, and a folder may hold images alone; `DATA:SPLIT`
            names the split.
        image_column: as there.
        label_column: as there; a set without labels gets one class.

    Returns:
        The split, by default that for testing, as in `Splits.only`.

    Raises:
        ValueError: if there is no such data set, split or column, or the split is empty.
    """
    name, wanted = base_and_split(data)
    loaded = BUILT_IN[name]() if name in BUILT_IN else _load(name, streaming=False, any_images=True)
    found = [wanted] if wanted else [split for split in (*TEST_NAMES, "train") if split in loaded]
    if not found or found[0] not in loaded:
        raise InputError(
            f"data {name!r} has the splits {sorted(loaded)}, expected {wanted or 'test'!r}; name one as DATA:SPLIT"
        )
    rows = loaded[found[0]]
    if len(rows) == 0:
        raise InputError(f"split {found[0]!r} of data {name!r} is empty, expected at least one image; check its files")
    image_column = _image_column(rows, image_column)
    label_names: tuple[str, ...] = ("unlabelled",)
    if label_column is None and not any(column in LABEL_NAMES for column in rows.column_names):
        rows, label_column = rows.add_column("label", [0] * len(rows)), "label"
    else:
        label_column = _label_column(rows, label_column)
        label_names = _label_names(rows, label_column)
    return Splits(rows.select([0]), rows, image_column, label_column, label_names, 1)


def _divided(found: Splits, data: str) -> Splits:
    from datasets import ClassLabel

    rows, column = found.test, found.label_column
    classes, labels = np.unique(np.asarray(rows[column][:]), return_inverse=True)
    if len(classes) < 2 or len(rows) * TEST_SHARE < 1:
        raise InputError(
            f"data {data!r} has {len(rows)} images of {len(classes)} classes, expected two classes or more, and five"
            " images or more, to train and to test on; name a labelled split"
        )
    if classes[0] < 0:
        raise InputError(f"data {data!r} hides labels behind {classes[0]}, expected all of them; name another split")
    names = tuple(found.label_names[index] for index in classes)
    rows = rows.remove_columns(column).add_column(column, labels.tolist())
    rows = rows.cast_column(column, ClassLabel(names=list(names)))
    test = held_out_mask(torch.from_numpy(labels), TEST_SHARE, seed=0).numpy()
    train, test = rows.select(np.flatnonzero(~test)), rows.select(np.flatnonzero(test))
    return Splits(train, test, found.image_column, column, names, len(train))


def _load(data: str, streaming: bool, any_images: bool = False) -> "DatasetDict":
    from datasets import load_dataset

    folder = Path(data).expanduser()
    if folder.is_dir():
        parquet = _parquet_files(folder)
        kind = "parquet" if parquet else "imagefolder"
        if parquet or any_images or (folder / "train").is_dir():
            try:
                files: dict[str, Any] = {"data_files": parquet} if parquet else {"data_dir": str(folder)}
                return load_dataset(kind, **files, streaming=streaming)
            except Exception as error:  # datasets raises errors of many types for damaged files and empty splits
                raise InputError(
                    f"folder {data!r} cannot be loaded as {kind} ({type(error).__name__}: {error}), expected whole"
                    " files and at least one image in every split; check its files"
                ) from error
        found = sorted(path.name for path in folder.iterdir())[:10]
        raise InputError(
            f"folder {data!r} holds {found}, expected train.parquet and test.parquet, or train/CLASS/*.png and"
            " test/CLASS/*.png; arrange it so or name another folder"
        )
    try:
        return load_dataset(data, streaming=streaming)
    except Exception as error:  # the hub client and its transports raise errors of a dozen unrelated types
        raise InputError(
            f"data {data!r} is no existing folder, none of {sorted(BUILT_IN)}, and could not be loaded from the Hugging"
            f" Face hub ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); check the"
            " spelling, or the connection if it is a hub id"
        ) from error


def _parquet_files(folder: Path) -> dict[str, list[str]]:
    files = {
        name: sorted(
            str(path) for path in folder.glob("*.parquet") if path.stem == name or path.stem.startswith(f"{name}-")
        )
        for name in ("train", *TEST_NAMES)
    }
    return {name: paths for name, paths in files.items() if paths}


def _first(split: Any, column: str) -> Any:
    """Return the first value of a column, None where there is none."""
    if column not in (split.column_names or ()):
        return None
    row: dict[str, Any] = next(iter(split.select_columns([column])), {column: None})
    return row[column]


def _check_column(split: "Dataset", column: str, where: str) -> None:
    if column not in split.column_names:
        raise InputError(
            f"{where} has no column {column!r}, expected one of {split.column_names}; name it with --image-column or"
            " --label-column"
        )


def _image_column(train: "Dataset", column: str | None) -> str:
    from datasets import Image

    if column is not None:
        _check_column(train, column, "split 'train'")
        return column
    return _only([name for name, kind in train.features.items() if isinstance(kind, Image)], train, "image")


def _label_column(train: "Dataset", column: str | None) -> str:
    from datasets import ClassLabel

    if column is not None:
        _check_column(train, column, "split 'train'")
        return column
    typed = [name for name, kind in train.features.items() if isinstance(kind, ClassLabel)]
    named = [name for name in LABEL_NAMES if name in (typed or train.column_names)]
    return _only(typed if len(typed) == 1 else named or typed, train, "label")  # CIFAR-100 has coarse labels beside


def _only(candidates: list[str], train: "Dataset", kind: str) -> str:
    if len(candidates) != 1:
        found = f"several {kind} columns, {candidates}" if candidates else f"no {kind} column"
        raise InputError(f"found {found} among {train.column_names}, expected one; name it with --{kind}-column")
    return candidates[0]


def _label_names(train: "Dataset", column: str) -> tuple[str, ...]:
    from datasets import ClassLabel

    kind: Any = train.features[column]
    if isinstance(kind, ClassLabel):
        return tuple(kind.names)
    values = np.asarray(train[column][:])
    if not np.issubdtype(values.dtype, np.integer):
        raise InputError(
            f"column {column!r} holds values such as {str(values[0])!r}, expected class indices 0..C-1; call"
            f" dataset.class_encode_column({column!r}) and save the result"
        )
    present = np.unique(values)
    num_classes = int(present[-1]) + 1
    if present[0] < 0 or len(present) != num_classes:
        raise InputError(
            f"labels in column {column!r} are {len(present)} different values from {present[0]} to {present[-1]},"
            " expected every index 0..C-1; re-index them, or store the column as datasets.ClassLabel with all names"
        )
    return tuple(str(index) for index in range(num_classes))


def _streamed_label_names(train: Any, column: str) -> tuple[str, ...]:
    from datasets import ClassLabel

    kind = train.features[column]
    if not isinstance(kind, ClassLabel):
        raise InputError(
            f"column {column!r} of the stream is {kind}, expected ClassLabel: a stream cannot be searched for its"
            " classes; store the column as datasets.ClassLabel, or drop streaming"
        )
    return tuple(kind.names)


def _streamed_length(train: Any, num_train: int | None) -> int:
    if num_train is not None:
        return num_train
    info = train.info.splits
    found = info["train"].num_examples if info is not None and "train" in info else 0
    if found < 1:
        raise InputError(
            "the stream does not say how many training images it has, expected num_train in the recipe: the length of"
            " the schedule depends on it"
        )
    return int(found)
