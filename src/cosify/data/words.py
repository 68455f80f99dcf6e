"""Number the classes of labels that are words as those of class folders are numbered: in the order of their names."""

from collections.abc import Mapping
from typing import Any

from cosify.data.classes import normal_names, share_classes
from cosify.errors import InputError


def has_words(rows: Any, column: str) -> bool:
    """Return whether the column is there and holds words."""
    from datasets import Value

    kind = (rows.features or {}).get(column)
    return isinstance(kind, Value) and "string" in kind.dtype  # string, large_string, string_view


def number_words(splits: Mapping[str, Any], column: str) -> dict[str, Any]:
    """Return splits whose labels are class numbers where they were words; other splits are returned as they are.

    Held-out splits have the numbers of train if train has all of their words, as in `share_classes`.

    Args:
        splits: rows by name of the split, no streams; the one called train gives the numbers.
        column: of labels.

    Raises:
        ValueError: if some splits have words and others numbers without names.
    """
    from datasets import ClassLabel, Value

    words = [name for name, rows in splits.items() if has_words(rows, column)]
    if not words:
        return {**splits}
    for name, rows in splits.items():
        kind = rows.features.get(column)
        hidden = isinstance(kind, Value) and kind.dtype == "null"
        if name not in words and not hidden and not isinstance(kind, ClassLabel):
            raise InputError(
                f"column {column!r} holds words in split {words[0]!r} and {kind} in split {name!r}, expected words in"
                " both, the names of the classes; write them"
            )
    return share_classes({name: _numbered(rows, name, column) for name, rows in splits.items()})


def _numbered(rows: Any, split: str, column: str) -> Any:
    """Return rows with class numbers for words; an empty word is a missing label, None."""
    from datasets import ClassLabel, Value

    if not has_words(rows, column):
        return rows
    words = rows.select_columns([column]).with_format("arrow")[:][column]
    found = [word for word in words.unique().to_pylist() if word is not None and word.strip() != ""]
    own = normal_names(found, f"column {column!r} of split {split!r}")
    numbers = {name: number for number, name in enumerate(sorted(own))}
    number_of = {word: numbers[name] for word, name in zip(found, own, strict=True)}
    labels = [number_of.get(word) for word in words.to_pylist()]
    kind = ClassLabel(names=sorted(own)) if own else Value("int64")  # all labels are hidden
    return rows.remove_columns(column).add_column(column, labels, feature=kind)
