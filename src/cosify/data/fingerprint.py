"""A fingerprint of the data that a run was started with, so that a resumed run notices other data.

It is the same wherever the same images lie, and few of them are read for it.  The key of a feature cache differs in
both: it changes with any byte, and may change for no reason.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cosify.data.decode import undecoded
from cosify.data.sources import BUILT_IN, Splits, base_and_split

SAMPLED = 64  # images of a split whose bytes are read
NAMED = 3  # classes that a message names


@dataclass(frozen=True)
class SplitPrint:
    """One split.

    Attributes:
        num: number of images; None for a stream that does not say it.
        counts: images of each class, C numbers; None for a stream.
        order: digest of the labels in their order; None for a stream.
        sample: digest of the files of some images, and of their labels; None for images that are made in memory.
    """

    num: int | None
    counts: tuple[int, ...] | None
    order: str | None
    sample: str | None


@dataclass(frozen=True)
class Fingerprint:
    """Both splits.

    Attributes:
        label_names: name of each class, in the order of the labels.
        train: training split.
        test: test split.
    """

    label_names: tuple[str, ...]
    train: SplitPrint
    test: SplitPrint

    @classmethod
    def of(cls, splits: Splits, *, files: bool = True) -> "Fingerprint":
        """Return the fingerprint of these splits.

        Args:
            splits: as they are trained on.
            files: whether the images are files, or cells of one.  Images that are made in memory are not compared: with
                the same pixels, their bytes differ between versions of Pillow.
        """
        train = _of_split(splits.train, splits.num_train, splits, files)
        return cls(splits.label_names, train, _of_split(splits.test, splits.num_test, splits, files))

    @classmethod
    def of_data(cls, data: str, splits: Splits) -> "Fingerprint":
        """Return the fingerprint of the splits of DATA, a name or path; built-in images are made in memory."""
        return cls.of(splits, files=base_and_split(data)[0] not in BUILT_IN)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Fingerprint":
        """Return a fingerprint from its record, as JSON gives it back."""
        splits = (
            SplitPrint(**{**record[name], "counts": _tuple(record[name]["counts"])}) for name in ("train", "test")
        )
        return cls(tuple(record["label_names"]), *splits)

    def record(self) -> dict[str, Any]:
        """Return the fingerprint ready for JSON."""
        return asdict(self)

    def digest(self) -> str:
        """Return the SHA-256 of the record, in hexadecimal digits: the same for the same data."""
        return _digest([json.dumps(self.record()).encode()])

    def changes(self, now: "Fingerprint", splits: Sequence[str] = ("train", "test")) -> list[str]:
        """Return what differs in `now`, in words; nothing for the same data.

        Args:
            now: of the data that are compared.
            splits: that are compared, beside the names of the classes.
        """
        found = _changed_names(self.label_names, now.label_names)
        for name in splits:
            found += _changed_split(name, getattr(self, name), getattr(now, name), self.label_names, now.label_names)
        return found


def _of_split(split: Any, num: int | None, splits: Splits, files: bool) -> SplitPrint:
    if splits.streaming:
        rows = list(islice(undecoded(split, splits.image_column), SAMPLED))
        return SplitPrint(num, None, None, _sample(rows, splits))
    labels = np.array([-1 if label is None else label for label in split[splits.label_column][:]], dtype="<i8")
    num_classes = len(splits.label_names)
    counts = np.bincount(labels[(labels >= 0) & (labels < num_classes)], minlength=num_classes)
    sample = None
    if files:
        chosen = split.select(range(0, len(split), math.ceil(len(split) / SAMPLED)))
        columns = [splits.image_column, splits.label_column]
        sample = _sample(undecoded(chosen.select_columns(columns), splits.image_column), splits)
    return SplitPrint(num, tuple(counts.tolist()), _digest([labels.tobytes()]), sample)


def _sample(rows: Iterable[Mapping[str, Any]], splits: Splits) -> str:
    parts = ((_bytes(row[splits.image_column]), repr(row[splits.label_column]).encode()) for row in rows)
    return _digest(part for pair in parts for part in pair)


def _bytes(cell: Mapping[str, Any] | None) -> bytes:
    """Return the file in a cell; nothing for one that cannot be read, which the pipeline will name."""
    if cell is None:
        return b""
    if cell["bytes"] is not None:
        return bytes(cell["bytes"])
    try:
        return Path(cell["path"]).read_bytes()
    except (OSError, TypeError):
        return b""


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _tuple(values: list[int] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(values)


def _changed_names(before: tuple[str, ...], now: tuple[str, ...]) -> list[str]:
    if before == now:
        return []
    if len(before) != len(now):
        gone, new = ([name for name in one if name not in set(other)] for one, other in ((before, now), (now, before)))
        words = [f"{kind} {_listed(map(repr, names))}" for kind, names in (("gone", gone), ("new", new)) if names]
        return [f"there are {len(now)} classes ({len(before)} before): {', '.join(words)}"]
    pairs = zip(before, now, strict=True)
    others = [f"{label} is {new!r} ({old!r} before)" for label, (old, new) in enumerate(pairs) if old != new]
    return [f"class {_listed(others)}"]


def _changed_split(
    name: str, before: SplitPrint, now: SplitPrint, names_before: tuple[str, ...], names_now: tuple[str, ...]
) -> list[str]:
    if before.num != now.num:
        return [f"split {name!r} has {now.num} images ({before.num} before)"]
    if before.counts != now.counts and before.counts is not None and now.counts is not None:
        if names_before != names_now:
            return []  # said already
        both = zip(names_now, before.counts, now.counts, strict=True)
        others = [f"{new} images of class {each!r} ({old} before)" for each, old, new in both if old != new]
        return [f"split {name!r} has {_listed(others)}"]
    if before.order != now.order:
        return [f"the images of split {name!r} have other labels, or come in another order"]
    if before.sample != now.sample:
        return [f"some images of split {name!r} are different"]
    return []


def _listed(words: Iterable[str]) -> str:
    words = list(words)
    more = f", and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return ", ".join(words[:NAMED]) + more
