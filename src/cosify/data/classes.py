"""Number the classes of all splits alike, by their names."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from cosify.errors import InputError

NAMED = 10  # classes, at most, that a message names


def normal_names(names: Sequence[str], where: str) -> list[str]:
    """Return class names in one Unicode form (NFC), in which equal names are equal.

    Args:
        names: of the classes.
        where: where they come from, for the message.

    Raises:
        ValueError: if two names are the same in this form.
    """
    normal = [unicodedata.normalize("NFC", name) for name in names]
    twice = sorted({name for name in normal if normal.count(name) > 1}) if len({*normal}) < len(normal) else []
    if twice:
        raise InputError(
            f"{where} names the classes {twice[:NAMED]} twice, in two Unicode forms, expected one; make them one class"
        )
    return normal


def share_classes(splits: Mapping[str, Any]) -> dict[str, Any]:
    """Return splits whose held-out rows have the class numbers of train, where train has all of their classes.

    Args:
        splits: rows by name of the split; nothing happens if none is called train.

    Raises:
        ValueError: if a stream would have to be numbered anew.
    """
    train = splits.get("train")
    return {name: rows if train is None else _numbered_as(train, name, rows) for name, rows in splits.items()}


def _numbered_as(train: Any, split: str, rows: Any) -> Any:
    from datasets import ClassLabel, Dataset

    for column, wanted in train.features.items():
        kind = rows.features.get(column)
        if not isinstance(wanted, ClassLabel) or not isinstance(kind, ClassLabel) or kind.names == wanted.names:
            continue
        place = {name: index for index, name in enumerate(normal_names(wanted.names, "split 'train'"))}
        own = normal_names(kind.names, f"split {split!r}")
        if not set(own) <= set(place):
            continue  # another task, maybe; `check_same_classes` refuses to train on it
        if not isinstance(rows, Dataset):  # to map a stream decodes its images, and loses their files
            raise InputError(
                f"split {split!r} numbers the classes of column {column!r} otherwise than split 'train',"
                f" {kind.names[:NAMED]} and {wanted.names[:NAMED]}, expected one order for a stream; write it again in"
                " that of train, or drop streaming"
            )
        numbers = [place[name] for name in own]
        # Hidden labels, -1 or none, stay hidden.
        values = [value if value is None or value < 0 else numbers[value] for value in rows[column][:]]
        rows = rows.remove_columns(column).add_column(column, values, feature=wanted)
    return rows


def check_same_classes(train: Any, test: Any, column: str, split: str) -> None:
    """Raise a ValueError if a column of the held-out rows has classes that train lacks.

    Args:
        train: rows.
        test: rows, after `share_classes`.
        column: of labels.
        split: name of the test split.
    """
    from datasets import ClassLabel

    wanted, found = train.features[column], test.features[column]
    if not isinstance(wanted, ClassLabel) or not isinstance(found, ClassLabel) or found.names == wanted.names:
        return
    known = set(normal_names(wanted.names, "split 'train'"))
    unknown = [name for name in normal_names(found.names, f"split {split!r}") if name not in known]
    raise InputError(
        f"split {split!r} has the classes {unknown[:NAMED]}, which are not among the {len(wanted.names)} of split"
        f" 'train', {wanted.names[:NAMED]}, expected classes of train; rename them, or add training images of them"
    )
