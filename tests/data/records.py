"""A writer of RecordIO files, from the format's description."""

import struct
from collections.abc import Sequence
from pathlib import Path

MAGIC = b"\x0a\x23\xd7\xce"


def part(kind: int, content: bytes) -> bytes:
    return MAGIC + struct.pack("<I", kind << 29 | len(content)) + content + bytes(-len(content) % 4)


def record(content: bytes) -> bytes:
    """Return a record; where the magic number stands at a multiple of 4 bytes, it is cut out between two parts."""
    pieces, start = [], 0
    for place in range(0, len(content) - 3, 4):
        if content[place : place + 4] == MAGIC:
            pieces.append(content[start:place])
            start = place + 4
    pieces.append(content[start:])
    kinds = [0] if len(pieces) == 1 else [1, *[2] * (len(pieces) - 2), 3]
    return b"".join(part(kind, piece) for kind, piece in zip(kinds, pieces, strict=True))


def packed(labels: float | Sequence[float], picture: bytes, number: int = 0) -> bytes:
    if isinstance(labels, int | float):
        return struct.pack("<IfQQ", 0, labels, number, 0) + picture
    return struct.pack(f"<IfQQ{len(labels)}f", len(labels), 0.0, number, 0, *labels) + picture


def record_file(folder: Path, contents: Sequence[bytes], keys: Sequence[int] | None = None) -> Path:
    """Write train.rec with a record for each content, and train.idx; records are numbered from 0 on."""
    folder.mkdir(parents=True, exist_ok=True)
    data, lines = b"", []
    for key, content in zip(range(len(contents)) if keys is None else keys, contents, strict=True):
        lines.append(f"{key}\t{len(data)}\n")
        data += record(content)
    (folder / "train.rec").write_bytes(data)
    (folder / "train.idx").write_text("".join(lines))
    return folder


def insightface(folder: Path, pictures: Sequence[bytes], labels: Sequence[int]) -> Path:
    """Write a set as insightface does: head, pictures, and the range of each person's pictures."""
    people = sorted(set(labels))
    count = len(pictures) + 1
    head = packed([count, count + len(people)], b"")
    rows = [packed(label, picture, row) for row, (label, picture) in enumerate(zip(labels, pictures, strict=True), 1)]
    ranges = [
        packed([1 + labels.index(person), 1 + labels.index(person) + labels.count(person)], b"") for person in people
    ]
    return record_file(folder, [head, *rows, *ranges])
