"""Files that are whole or not there, and which ones they are."""

import hashlib
import os
from pathlib import Path

CHUNK = 1 << 24  # bytes


def sha256_of(file: Path) -> str:
    """Return the sha256 of a file, 16 MB of it in memory at a time."""
    found = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a file that appears at once, whole, or not at all.

    Args:
        path: of the file; what it holds is replaced.
        text: what it shall hold.
    """
    aside = path.with_name(f".{path.name}.new")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
