"""Write files that are whole or not there, and tell files apart by digest."""

import glob
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
        path: of the file; what it holds is replaced, a link there is replaced and not followed.
        text: what it shall hold.
    """
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write what JSON can hold, indented, as `write_whole` does."""
    write_whole(path, json.dumps(content, indent=2) + "\n")


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a new, empty file beside `path`, to be written; it takes the place of `path` when the block ends well."""
    aside = beside(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    os.close(os.open(aside, flags, 0o666))
    try:
        yield aside
        sync(aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def sync(file: Path) -> None:
    """Wait until what was written to a file is on the disk."""
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def beside(path: Path) -> Path:
    """Return a new name beside `path`: what is written there is nobody else's, and no link waits for it."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")


def left_aside(path: Path) -> list[Path]:
    """Return what a process that was killed has left beside `path`."""
    random = "[0-9a-f]" * 16
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.{random}.new"))
