"""From the name of a data set, or a path, to its train and test splits."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cosify.data.classes import check_same_classes
from cosify.data.columns import (
    as_images,
    check_column,
    find_image_column,
    find_label_column,
    has_labels,
    label_columns,
    label_names,
    label_values,
    streamed_label_names,
    tell_missing_classes,
)
from cosify.data.digit_pairs import two_digits
from cosify.data.folders import TEST_NAMES, VALIDATION_NAMES, FolderSplits, open_folder
from cosify.data.handwritten_digits import digits
from cosify.data.held_out import TEST_SHARE, held_out_mask
from cosify.data.list_files import find_lists, without_root
from cosify.data.synthetic_images import synthetic
from cosify.data.words import has_words, number_words
from cosify.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

NAMED = 5  # classes, at most, that a repr names
SHUFFLE_BUFFER = 10_000  # rows of a stream among which the next one is drawn
BUILT_IN: dict[str, Callable[[], Mapping[str, Any]]] = {
    "digits": digits,
    "two-digits": two_digits,
    "synthetic": synthetic,
}
logger = logging.getLogger("cosify")


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
        streaming: whether rows are read one after the other, without a known length and without being stored.
        left_out: number of files and folders of a local folder that give no rows; see `FolderSplits`.
    """

    train: "Dataset"
    test: "Dataset"
    image_column: str
    label_column: str
    label_names: tuple[str, ...]
    num_train: int
    streaming: bool = False
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __repr__(self) -> str:
        counts = f"{self.num_train} training and {self.num_test} test images"
        return f"Splits({'a stream' if self.streaming else counts} of {self.classes})"

    @property
    def classes(self) -> str:
        """Their number and the first names, for messages."""
        names = ", ".join(map(repr, self.label_names[:NAMED])) + (", ..." if len(self.label_names) > NAMED else "")
        return f"{len(self.label_names)} classes: {names}"

    @property
    def num_test(self) -> int | None:
        """Samples of the test split, None for a stream."""
        return None if self.streaming else len(self.test)

    def split(self, name: str) -> "Dataset":
        """Return the split `"train"` or `"test"`."""
        return self.train if name == "train" else self.test

    def only(self, name: str, limit: int | None = None) -> "Splits":
        """Return one split as the test split, to look at it alone; the training split is its first row.

        Args:
            name: `"train"` or `"test"`.
            limit: most rows, chosen at random but always the same; None for all, in their order.
        """
        rows = self.split(name)
        if limit is not None and limit < 1:
            raise InputError(f"limit is {limit}, expected 1 or more; drop it for all {len(rows)} images")
        if limit is not None and limit < len(rows):
            rows = rows.shuffle(seed=0).select(range(limit))
        return replace(self, train=rows.select([0]), test=rows, num_train=1)

    def limit_train(self, num_samples: int) -> "Splits":
        """Return the splits with `num_samples` training rows, chosen at random but always the same.

        Those of a stream come from its beginning: `SHUFFLE_BUFFER` rows of it are held while they are drawn.

        Raises:
            ValueError: if there are not that many, or none are asked for.
        """
        if not 1 <= num_samples <= self.num_train:
            raise InputError(
                f"limit_train is {num_samples}, expected 1 to {self.num_train}, the size of the training split;"
                " drop the option to use all of it"
            )
        train: Any = self.train
        if self.streaming:  # not its first rows, which are of few classes where files are sorted
            train = train.shuffle(seed=0, buffer_size=SHUFFLE_BUFFER).take(num_samples)
        else:
            train = train.shuffle(seed=0).select(range(num_samples))
        return replace(self, train=train, num_train=num_samples)


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


def short_name(data: str) -> str:
    """Return a short name of a set: the last part of a path or id, or what lists begin with, and a split's name."""
    base, split = base_and_split(data)
    return "-".join(filter(None, (name_of(base), split)))


def name_of(data: str) -> str:
    """Return the last part of a path or id, or what lists begin with."""
    return Path(without_root(data)).resolve().name


def load_splits(
    data: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    test_split: str | None = None,
    streaming: bool = False,
    num_train: int | None = None,
) -> Splits:
    """Find a data set and the columns to use.

    Args:
        data: `"digits"`, `"two-digits"`, `"synthetic"`, a folder with train.parquet and test.parquet (or
            train-00000-of-00002.parquet), a folder with train/CLASS/*.png and test/CLASS/*.png, or the id of a data set
            on the Hugging Face hub.  Lists of `path label` are named by what their files begin with: `lists/Places_LT`
            for lists/Places_LT_train.txt and lists/Places_LT_test.txt, `lists/Places_LT@ROOT` if the images lie below
            ROOT.  `DATA:SPLIT` is one split of these, of which a fifth of each class tests and the
            rest trains, as in `cosify.evaluation.transfer`; classes that do not occur in it are dropped.  A folder of
            CLASS/*.png alone is one split, `FOLDER:train`.
        image_column: its column of images; default: the only one of that type, or else the only one of their files.
        label_column: its column of class indices, or of words, which are numbered as class folders are; default:
            the only one of type `ClassLabel`, or one of `LABEL_NAMES`.
        test_split: the split to test on, such as `"validation"`; default: see below.
        streaming: read rows as they are needed, without storing or even downloading the whole set.
        num_train: rows of a streamed training split that do not say how many they are; an epoch has that many.

    Returns:
        Both splits, with the class numbers of the training split; one named validation, valid, val or dev serves as
        test where there is no test, or its labels are hidden.  A warning names classes without training images, or
        without test images.

    Raises:
        ValueError: if there is no such data set, split or column, a split is empty, labels are missing, or numbers but
            not 0..C-1, or words of a stream, or the test split has classes that the training split lacks.
    """
    base, split = base_and_split(data)
    if streaming and (base in BUILT_IN or split):
        raise InputError(f"streaming is on, but data {data!r} is needed in memory; drop streaming")
    if split and test_split is not None:
        raise InputError(f"test_split is {test_split!r} and data {data!r} one split, expected one of the two; drop one")
    if split:
        return _divided(_one_split(data, image_column, label_column, labelled=True), data)
    loaded = _load(data, streaming=streaming, labelled=True, label_column=label_column)
    held_out = [name for name in TEST_NAMES if name in loaded]
    if "train" not in loaded or not held_out:
        alone = f"{data}:{'train' if 'train' in loaded else min(loaded)}"
        raise InputError(
            f"data {data!r} has the splits {sorted(loaded)}, expected 'train' and one of {list(TEST_NAMES)}; give it a"
            " held-out split, so that accuracy is measured on images that were not trained on, or name"
            f" {alone!r}, of which a fifth of each class is held out from training, and which cosify evaluate measures"
            " whole"
        )
    train = loaded["train"]
    for name in () if streaming else ("train", *held_out):
        _check_rows(loaded[name], name, data)
    image_column = find_image_column(train, image_column, "train")
    label_column = find_label_column(train, label_column, "train")
    labelled = [name for name in held_out if has_labels(loaded[name], label_column)]
    test_name = (labelled or held_out)[0] if test_split is None else _first_of([test_split], held_out, data)
    test = loaded[test_name]
    unused = [name for name in held_out if name != test_name]
    for name in unused if test_split is None else ():
        other = f"a run with test_split={name} is evaluated on it" if name in labelled else "it has no labels"
        logger.warning("data %s: numbers are of split %r, and %r is not used; %s", data, test_name, name, other)
    left_out = _left_out(loaded, () if streaming else unused)
    for column in (image_column, label_column):
        check_column(test, column, test_name)
    train, test = as_images(train, image_column, "train"), as_images(test, image_column, test_name)
    if not streaming:
        train, test = number_words({"train": train, test_name: test}, label_column).values()
    names = streamed_label_names(train, label_column) if streaming else label_names(train, label_column, "train")
    if len(names) < 2:
        raise InputError(f"data {data!r} has one class, {list(names)}, expected two or more; add images of another")
    check_same_classes(train, test, label_column, test_name)
    if streaming:
        num_train = _streamed_length(train, num_train)
        return Splits(train, test, image_column, label_column, names, num_train, True, left_out)
    label_values(test, label_column, test_name)
    tell_missing_classes(train, label_column, names, training=True)
    if labelled:
        tell_missing_classes(test, label_column, names, training=False)
    return Splits(train, test, image_column, label_column, names, len(train), left_out=left_out)


def load_images(
    data: str, *, image_column: str | None = None, label_column: str | None = None, labelled: bool = False
) -> Splits:
    """Find one split of a data set, to use it alone: an outlier set, or a task to transfer to.

    Args:
        data: as in `load_splits`, but no training split is needed, and a folder may hold images alone; `DATA:SPLIT`
            names the split.
        image_column: as there.
        label_column: as there; a set without labels, or with numbers that are not 0..C-1, gets one class.
        labelled: whether labels are needed: then such a set is an error.

    Returns:
        The split, by default that for testing, as in `Splits.only`.

    Raises:
        ValueError: if there is no such data set, split or column, or the split is empty.
    """
    return _one_split(data, image_column, label_column, labelled=labelled)


def _one_split(data: str, image_column: str | None, label_column: str | None, *, labelled: bool) -> Splits:
    from datasets import Value

    base, wanted = base_and_split(data)
    loaded = _load(base, streaming=False, labelled=labelled, label_column=label_column)
    found = _first_of([wanted] if wanted else [*TEST_NAMES, "train"], loaded, base)
    rows = loaded[found]
    _check_rows(rows, found, base)
    image_column = find_image_column(rows, image_column, found)
    rows = as_images(rows, image_column, found)
    candidates, needed = label_columns(rows), labelled or label_column is not None
    if needed or len(candidates) == 1:
        label_column = find_label_column(rows, label_column, found)
        label_values(rows, label_column, found)
        try:
            if has_words(rows, label_column):
                rows = _numbered_as_train(loaded, rows, found, label_column)
            numbered = rows
            if labelled and isinstance(rows.features[label_column], Value):  # a test split may lack some numbers
                numbered = loaded["train"] if label_column in label_columns(loaded.get("train", rows)) else rows
            class_names = label_names(numbered, label_column, found if numbered is rows else "train")
        except InputError as error:
            if needed:
                raise
            logger.warning("data %s counts as unlabelled: %s", data, error)
            return unlabelled(rows, image_column)
        return Splits(rows.select([0]), rows, image_column, label_column, class_names, 1, left_out=_left_out(loaded))
    if candidates:
        logger.warning("data %s counts as unlabelled: any of its columns %s may be the label", data, candidates)
    return unlabelled(rows, image_column)


def _first_of(names: Sequence[str], splits: Collection[str], data: str) -> str:
    """Return the first of some names that is a split; those of a validation split are one, whatever data call it."""
    if names[0] in VALIDATION_NAMES:
        names = [*names, *VALIDATION_NAMES]
    found = next((name for name in names if name in splits), None)
    if found is None:
        raise InputError(f"data {data!r} has the splits {sorted(splits)}, expected {names[0]!r}; name one of these")
    return found


def _numbered_as_train(loaded: Mapping[str, Any], rows: Any, split: str, column: str) -> Any:
    """Return rows with class numbers for words; those of train, if that has classes in the same column."""
    train = loaded.get("train")
    numbers_it = train is not None and (has_words(train, column) or column in label_columns(train))
    others = {"train": train} if numbers_it and split != "train" else {}
    return number_words({**others, split: rows}, column)[split]


def _left_out(loaded: Mapping[str, Any], unused: Sequence[str] = ()) -> Mapping[str, Mapping[str, int]]:
    found = loaded.left_out if isinstance(loaded, FolderSplits) else {}
    return found | {
        name: {**found.get(name, {}), "rows of a split that is not used": len(loaded[name])} for name in unused
    }


def unlabelled(rows: "Dataset", image_column: str) -> Splits:
    """Return images as a test split of one class, as `load_images` returns a set without labels."""
    label_column = "label" if "label" not in rows.column_names else "unlabelled"
    rows = rows.add_column(label_column, [0] * len(rows))
    return Splits(rows.select([0]), rows, image_column, label_column, ("unlabelled",), 1)


def _check_rows(rows: Any, split: str, data: str) -> None:
    if len(rows) == 0:
        raise InputError(f"split {split!r} of data {data!r} is empty, expected at least one image; check its files")


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
    rows = rows.remove_columns(column).add_column(column, labels.tolist(), feature=ClassLabel(names=list(names)))
    test = held_out_mask(torch.from_numpy(labels), TEST_SHARE, seed=0).numpy()
    train, test = rows.select(np.flatnonzero(~test)), rows.select(np.flatnonzero(test))
    tell_missing_classes(test, column, names, training=False)
    return Splits(train, test, found.image_column, column, names, len(train), left_out=found.left_out)


def _load(data: str, *, streaming: bool, labelled: bool, label_column: str | None) -> Mapping[str, Any]:
    """Return the rows of each split; `labelled` and `label_column` as in `open_folder`."""
    from datasets import load_dataset

    if data in BUILT_IN:
        return BUILT_IN[data]()
    lists = find_lists(data)
    if lists is not None:
        return {name: rows.to_iterable_dataset() for name, rows in lists.items()} if streaming else lists
    folder = Path(data).expanduser()
    if folder.is_dir():
        return open_folder(folder, streaming=streaming, labelled=labelled, label_column=label_column)
    if folder.is_file():
        raise InputError(
            f"data {data!r} is a file, expected the folder that it lies in; write {str(folder.parent)!r}, with :SPLIT"
            " for one split of it"
        )
    try:
        loaded: Mapping[str, Any] = load_dataset(data, streaming=streaming)
        return loaded
    except Exception as error:  # the hub client and its transports raise errors of a dozen unrelated types
        raise InputError(
            f"data {data!r} is no existing folder, none of {sorted(BUILT_IN)}, and could not be loaded from the Hugging"
            f" Face hub ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); check the"
            " spelling, or the connection if it is a hub id"
        ) from error


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
