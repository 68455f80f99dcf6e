"""From the name of a data set, or a path, to its train and test split."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cosify.data.digits import digits
from cosify.data.synthetic import synthetic

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

BUILT_IN = {"digits": digits, "synthetic": synthetic}
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
    """

    train: "Dataset"
    test: "Dataset"
    image_column: str
    label_column: str
    label_names: tuple[str, ...]

    def limit_train(self, num_samples: int) -> "Splits":
        """Return the same with a random but always equal choice of `num_samples` rows to train on.

        Raises:
            ValueError: if there are not that many, or none are asked for.
        """
        if not 1 <= num_samples <= len(self.train):
            raise ValueError(
                f"limit_train is {num_samples}, expected 1 to {len(self.train)}, the size of the training split;"
                " drop the option to use all of it"
            )
        return replace(self, train=self.train.shuffle(seed=0).select(range(num_samples)))


def load_splits(data: str, *, image_column: str | None = None, label_column: str | None = None) -> Splits:
    """Find a data set and the columns to use.

    Args:
        data: `"digits"`, `"synthetic"`, a folder with train.parquet and test.parquet (or train-*.parquet), a folder
            with train/CLASS/*.png and test/CLASS/*.png, or the id of a data set on the Hugging Face hub.
        image_column: its column of images; default: the only one of that type.
        label_column: its column of class indices; default: the only one of type `ClassLabel`, or one of `LABEL_NAMES`.

    Returns:
        Both splits; a split named validation serves as test where there is no test.

    Raises:
        ValueError: if there is no such data set, split or column, a split is empty, or labels are not 0..C-1.
    """
    loaded = BUILT_IN[data]() if data in BUILT_IN else _load(data)
    test_name = next((name for name in TEST_NAMES if name in loaded), None)
    if "train" not in loaded or test_name is None:
        raise ValueError(
            f"data {data!r} has the splits {sorted(loaded)}, expected 'train' and one of {list(TEST_NAMES)}; give it a"
            " held-out split, so that accuracy is measured on images that were not trained on"
        )
    train, test = loaded["train"], loaded[test_name]
    for name, split in (("train", train), (test_name, test)):
        if len(split) == 0:
            raise ValueError(f"split {name!r} of data {data!r} is empty, expected at least one image; check its files")
    image_column = _image_column(train, image_column)
    label_column = _label_column(train, label_column)
    for column in (image_column, label_column):
        _check_column(test, column, f"split {test_name!r}")
    return Splits(train, test, image_column, label_column, _label_names(train, label_column))


def _load(data: str) -> "DatasetDict":
    from datasets import load_dataset

    folder = Path(data).expanduser()
    if folder.is_dir():
        parquet = _parquet_files(folder)
        kind = "parquet" if parquet else "imagefolder"
        if parquet or (folder / "train").is_dir():
            try:
                return load_dataset(kind, **({"data_files": parquet} if parquet else {"data_dir": str(folder)}))
            except Exception as error:  # datasets raises errors of many types for damaged files and empty splits
                raise ValueError(
                    f"folder {data!r} cannot be loaded as {kind} ({type(error).__name__}: {error}), expected whole"
                    " files and at least one image in every split; check its files"
                ) from error
        found = sorted(path.name for path in folder.iterdir())[:10]
        raise ValueError(
            f"folder {data!r} holds {found}, expected train.parquet and test.parquet, or train/CLASS/*.png and"
            " test/CLASS/*.png; arrange it so or name another folder"
        )
    try:
        return load_dataset(data)
    except Exception as error:  # the hub client and its transports raise errors of a dozen unrelated types
        raise ValueError(
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


def _check_column(split: "Dataset", column: str, where: str) -> None:
    if column not in split.column_names:
        raise ValueError(
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
    return _only(typed if typed else [name for name in LABEL_NAMES if name in train.column_names], train, "label")


def _only(candidates: list[str], train: "Dataset", kind: str) -> str:
    if len(candidates) != 1:
        found = f"several {kind} columns, {candidates}" if candidates else f"no {kind} column"
        raise ValueError(f"found {found} among {train.column_names}, expected one; name it with --{kind}-column")
    return candidates[0]


def _label_names(train: "Dataset", column: str) -> tuple[str, ...]:
    from datasets import ClassLabel

    kind: Any = train.features[column]
    if isinstance(kind, ClassLabel):
        return tuple(kind.names)
    values = np.asarray(train[column][:])
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(
            f"column {column!r} holds values such as {str(values[0])!r}, expected class indices 0..C-1; call"
            f" dataset.class_encode_column({column!r}) and save the result"
        )
    present = np.unique(values)
    num_classes = int(present[-1]) + 1
    if present[0] < 0 or len(present) != num_classes:
        raise ValueError(
            f"labels in column {column!r} are {len(present)} different values from {present[0]} to {present[-1]},"
            " expected every index 0..C-1; re-index them, or store the column as datasets.ClassLabel with all names"
        )
    return tuple(str(index) for index in range(num_classes))
