"""Which columns of a data set are images and labels, and what the labels are."""

import io
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from cosify.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

LABEL_NAMES = ("label", "labels", "fine_label", "target")
HIDDEN = (None, -1, "", "-1")  # labels that say that there is none
NAMED = 10  # classes, at most, that a message names
logger = logging.getLogger("cosify")


def check_column(rows: "Dataset", column: str, split: str) -> None:
    """Raise a ValueError unless the split of that name has the column."""
    if column not in rows.column_names:
        raise InputError(
            f"split {split!r} has no column {column!r}, expected one of {rows.column_names}; name it with"
            " --image-column or --label-column"
        )


def find_image_column(rows: "Dataset", column: str | None, split: str) -> str:
    """Return the named column, or the only one of images; if no column has that type, the only one that holds files.

    Raises:
        ValueError: if there is no such column, or several.
    """
    from datasets import Image

    if column is not None:
        check_column(rows, column, split)
        return column
    typed = [name for name, kind in rows.features.items() if isinstance(kind, Image)]
    return _only(typed or [name for name in rows.features if _holds_files(rows, name)], rows, "image")


def _holds_files(rows: Any, column: str) -> bool:
    """Return whether cells are {bytes, path}, as datasets stores images, or bytes that Pillow opens."""
    from datasets import Value
    from PIL import Image

    kind = rows.features[column]
    if isinstance(kind, dict) and set(kind) == {"bytes", "path"}:
        return _is_binary(kind["bytes"])
    content = first_value(rows, column) if isinstance(kind, Value) and _is_binary(kind) else None
    if content is None:
        return False
    try:
        Image.open(io.BytesIO(content)).close()
    except Exception:  # Pillow's decoders raise errors of a dozen unrelated types
        return False
    return True


def _is_binary(kind: Any) -> bool:
    return getattr(kind, "dtype", None) in ("binary", "large_binary")


def as_images(rows: Any, column: str, split: str) -> Any:
    """Return rows whose column has the type of images; files without it are what image columns store.

    Raises:
        ValueError: if the column holds something else.
    """
    from datasets import Image

    kind = rows.features[column]
    if isinstance(kind, Image):
        return rows
    try:
        return rows.cast_column(column, Image())
    except Exception as error:  # of pyarrow and of datasets, of several types
        raise InputError(
            f"column {column!r} of split {split!r} is {kind}, expected images, or their files as bytes; name the column"
            " of images with --image-column"
        ) from error


def find_label_column(rows: "Dataset", column: str | None, split: str) -> str:
    """Return the named column, or else the only one of type `ClassLabel`, or else the only one of `LABEL_NAMES`.

    Raises:
        ValueError: if there is no such column, or several.
    """
    if column is not None:
        check_column(rows, column, split)
        return column
    return _only(label_columns(rows), rows, "label")


def label_columns(rows: "Dataset") -> list[str]:
    """Return the columns that may hold the labels; one, if that is clear."""
    from datasets import ClassLabel

    typed = [name for name, kind in rows.features.items() if isinstance(kind, ClassLabel)]
    named = [name for name in LABEL_NAMES if name in (typed or rows.column_names)]
    return typed if len(typed) == 1 else named or typed  # CIFAR-100 has coarse labels beside


def _only(candidates: list[str], rows: "Dataset", kind: str) -> str:
    if len(candidates) != 1:
        found = f"several {kind} columns, {candidates}" if candidates else f"no {kind} column"
        raise InputError(f"found {found} among {rows.column_names}, expected one; name it with --{kind}-column")
    return candidates[0]


def first_value(rows: Any, column: str) -> Any:
    """Return the first value of a column; None if the column is missing or empty."""
    if column not in (rows.column_names or ()):
        return None
    row: dict[str, Any] = next(iter(rows.select_columns([column])), {column: None})
    return row[column]


def has_labels(rows: Any, column: str) -> bool:
    """Return whether a split has labels: some sets hide those of their test split behind -1, or leave them out.

    A stream is judged by its first row.
    """
    kind = (rows.features or {}).get(column)
    if not hasattr(rows, "__len__") or getattr(kind, "dtype", None) is None:
        return first_value(rows, column) not in HIDDEN
    values = rows.select_columns([column]).with_format("arrow")[:][column].unique().to_pylist()
    return any(value not in HIDDEN for value in values)


def label_values(rows: "Dataset", column: str, split: str) -> Any:
    """Return the labels as an Arrow column.

    Raises:
        ValueError: if a row has none.
    """
    values = rows.select_columns([column]).with_format("arrow")[:][column]
    if values.null_count > 0:
        raise InputError(
            f"{values.null_count} rows of split {split!r} have no label (null) in column {column!r}, the first is row"
            f" {values.is_null().index(True).as_py()}, expected a label in every row; label them or take them out"
            " (csv files read the words NA, None, null and nan as missing, metadata.jsonl keeps them)"
        )
    return values


def label_names(rows: "Dataset", column: str, split: str) -> tuple[str, ...]:
    """Return the name of each class, C of them; integers without names are called by their number.

    Raises:
        ValueError: if a label is missing, or labels are no integers 0..C-1.
    """
    from datasets import ClassLabel

    labels = label_values(rows, column, split)
    kind: Any = rows.features[column]
    if isinstance(kind, ClassLabel):
        return tuple(kind.names)
    values = np.asarray(labels.to_pylist())
    if not np.issubdtype(values.dtype, np.integer) or values.ndim != 1:
        raise InputError(
            f"column {column!r} holds values such as {str(values[0])!r}, expected class indices 0..C-1, or words, the"
            " names of the classes; write one of these"
        )
    present = np.unique(values)
    num_classes = int(present[-1]) + 1
    if present[0] < 0 or len(present) != num_classes:
        raise InputError(
            f"labels in column {column!r} are {len(present)} different values from {present[0]} to {present[-1]},"
            " expected every index 0..C-1; number them anew from 0 without gaps, or write the name of the class, a"
            " word, in place of each number"
        )
    return tuple(str(index) for index in range(num_classes))


def streamed_label_names(rows: Any, column: str) -> tuple[str, ...]:
    """Return the name of each class of a stream; its column must be a `ClassLabel`, as labels are read later."""
    from datasets import ClassLabel

    kind = rows.features[column]
    if not isinstance(kind, ClassLabel):
        raise InputError(
            f"column {column!r} of the stream is {kind}, expected ClassLabel: a stream cannot be searched for its"
            " classes; store the column as datasets.ClassLabel, or drop streaming"
        )
    return tuple(kind.names)


def tell_missing_classes(rows: "Dataset", column: str, names: tuple[str, ...], *, training: bool) -> None:
    """Warn of classes without images.

    Args:
        rows: a split.
        column: of class indices.
        names: of the classes.
        training: whether the split is learnt from; otherwise it is measured on.
    """
    present = set(label_values(rows, column, "train" if training else "test").unique().to_pylist())
    missing = [name for index, name in enumerate(names) if index not in present]
    if missing:
        learnt = "training images, and cannot be learnt"
        kind = learnt if training else "test images, so that no accuracy speaks of them"
        logger.warning(
            "%d of %d classes have no %s: %s%s",
            *(len(missing), len(names), kind, ", ".join(missing[:NAMED]), ", ..." if len(missing) > NAMED else ""),
        )
