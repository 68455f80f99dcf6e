"""Read the training sets of insightface, train.rec and train.idx of MXNet's RecordIO, without mxnet.

A file is a row of records: the magic number, 3 bits of kind and 29 of length, that many bytes, zeros up to a multiple
of 4.  A record whose bytes hold the magic number is stored in parts, between which it is left out (kinds 1, 2, 3).  The
bytes begin with a head: number of labels (0: one, in the head), label, two ids; labels; then the picture's file.
"""

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from cosify.errors import InputError, NotFoundError

MAGIC = struct.pack("<I", 0xCED7230A)
PART = struct.Struct("<4sI")
HEAD = struct.Struct("<IfQQ")
WHOLE, BEGIN, MIDDLE, END = range(4)


@dataclass(frozen=True, eq=False)
class RecordFile:
    """Labelled pictures in a file of records.

    Attributes:
        file: train.rec.
        places: [N], byte in the file at which each picture's record begins, in the order of their numbers.
        labels: [N], int64, from 0 on.
    """

    file: Path
    places: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def pictures(self) -> Iterator[bytes]:
        """Yield the files of the pictures, such as JPEG, one in memory at a time."""
        with self.file.open("rb") as opened:
            for place in self.places.tolist():
                _, content = _labels_and_picture(_record(opened, place))
                yield content


def open_records(folder: Path | str) -> RecordFile:
    """Read train.idx and train.rec in a folder once, whole; one record is in memory at a time.

    Record 0 of insightface's sets says how many pictures there are; records without a picture, which follow them, say
    which pictures each person has, and are left out: labels say it, too.

    Args:
        folder: that holds both files.

    Raises:
        NotFoundError: a ValueError and a FileNotFoundError, if one is missing.
        ValueError: if the index, a record or a label is not as described, or the numbers of pictures differ.
    """
    file, index = Path(folder, "train.rec"), Path(folder, "train.idx")
    for each in (file, index):
        if not each.is_file():
            raise NotFoundError(f"{each} is not there, expected train.rec and train.idx; check the name of the folder")
    keys, places = _read_index(index)
    starts = np.append(np.sort(places), file.stat().st_size)
    ends = starts[np.searchsorted(starts, places, side="right").clip(max=len(places))]  # where the next one begins
    kept, labels, said, last = array("q"), array("q"), None, 0
    with file.open("rb") as opened:
        for key, place, end in zip(keys.tolist(), places.tolist(), ends.tolist(), strict=True):
            try:
                found, picture = _labels_and_picture(_record(opened, place))
                if opened.tell() > end:
                    raise InputError(f"it ends at {opened.tell()}, after the next one begins, at {end}")
                last = max(last, opened.tell())
            except InputError as error:
                raise InputError(f"record {key} of {file}: {error}; fetch the files again") from error
            if picture:
                kept.append(place)
                labels.append(_label(found, key, file))
            elif key == 0 and len(found) > 1:
                said = found[0]
    if starts[-1] - last >= PART.size:
        raise InputError(f"{file} goes on after the last record of {index}, at {last}; fetch the files again")
    if not labels or (said is not None and np.float32(len(labels) + 1) != np.float32(said)):
        expected = "at least one" if said is None else f"the {said - 1:.0f} that record 0 names"
        raise InputError(f"{file} holds {len(labels)} pictures, expected {expected}; fetch the files again")
    return RecordFile(file, np.array(kept, np.int64), np.array(labels, np.int64))


def _read_index(file: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of each record, ascending, and where it begins."""
    keys, places = array("q"), array("q")
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            words = line.split()
            if len(words) != 2 or not all(word.isascii() and word.isdigit() and len(word) < 19 for word in words):
                raise InputError(f"line {number} of {file} is {line[:80]!r}, expected number and place of a record")
            keys.append(int(words[0]))
            places.append(int(words[1]))
    order = np.argsort(np.array(keys, np.int64), kind="stable")
    for name, values in (("number", keys), ("place", places)):
        repeated = len(values) - len(np.unique(np.array(values, np.int64)))
        if repeated:
            raise InputError(f"{repeated} lines of {file} repeat the {name} of another, expected one a record")
    return np.array(keys, np.int64)[order], np.array(places, np.int64)[order]


def _record(file: BinaryIO, place: int) -> bytes:
    """Return the bytes of the record that begins at a place, its parts joined."""
    file.seek(place)
    parts: list[bytes] = []
    while True:
        head = file.read(PART.size)
        magic, word = PART.unpack(head) if len(head) == PART.size else (b"", 0)
        if magic != MAGIC:
            raise InputError(f"its bytes at {place} do not begin with the magic number of RecordIO")
        kind, length = word >> 29, word & ((1 << 29) - 1)
        if kind not in ((MIDDLE, END) if parts else (WHOLE, BEGIN)):
            raise InputError(f"its parts are out of order: kind {kind} after {len(parts)} of them")
        parts.append(file.read(length))
        if len(parts[-1]) != length:
            raise InputError(f"it ends after {len(parts[-1])} of {length} bytes")
        if kind in (WHOLE, END):
            return MAGIC.join(parts)
        file.seek(-length % 4, 1)


def _labels_and_picture(record: bytes) -> tuple[tuple[float, ...], bytes]:
    if len(record) < HEAD.size:
        raise InputError(f"it has {len(record)} bytes, expected a head of {HEAD.size}")
    num_labels, label, _, _ = HEAD.unpack_from(record)
    start = HEAD.size + 4 * num_labels
    if len(record) < start:
        raise InputError(f"it has {len(record)} bytes, expected {num_labels} labels in it")
    labels = struct.unpack_from(f"<{num_labels}f", record, HEAD.size) if num_labels else (label,)
    return labels, record[start:]


def _label(labels: tuple[float, ...], key: int, file: Path) -> int:
    label = labels[0]
    if not 0 <= label < 1 << 24 or label != int(label):  # beyond, float32 has no odd numbers
        raise InputError(f"record {key} of {file} has the label {label}, expected a whole number from 0 on")
    return int(label)
