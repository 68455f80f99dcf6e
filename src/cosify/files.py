"""Write files that are whole or not there, and tell files apart by digest."""

import glob
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

CHUNK = 1 << 24  # bytes
RANDOM = "[0-9a-f]" * 16  # pattern of the middle of a name that `beside` returns
ASIDE = (f".*.{RANDOM}.new", f".*.{RANDOM}.new/*")  # patterns of what a killed process leaves


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
    """Give the name of a file to be written, which takes the place of `path` when the block ends well.

    It lies in a new folder beside `path`.  Libraries write to further files there, such as the `.tmp*` of safetensors,
    so that all that a killed process leaves is in a folder of a name that we know.

    Raises:
        OSError: if the file cannot be written, also where safetensors has an error of its own for that.
    """
    folder = beside(path)
    folder.mkdir()
    aside = folder / path.name
    try:
        yield aside
        aside.chmod(folder.stat().st_mode & 0o666)  # safetensors lets the owner alone read
        sync(aside)
        aside.replace(path)
    except SafetensorError as error:
        raise OSError(
            f"{path} cannot be written ({error}), expected a folder with room for it; make room, or choose"
            " another folder"
        ) from error
    except OSError as error:
        if error.errno is not None and error.filename is None:  # as on a full disk
            error.filename = str(path)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sync(file: Path) -> None:
    """Wait until what was written to a file is on the disk."""
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def beside(path: Path) -> Path:
    """Return a new name beside `path`: what is written there is nobody else's, and no link waits for it."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")


def left_aside(path: Path) -> list[Path]:
    """Return what a process that was killed has left beside `path`: folders, or files of an earlier version."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.{RANDOM}.new"))


def remove_left(folder: Path, *names: str) -> None:
    """Remove what killed processes left of files in a folder, to which no other process writes now.

    Args:
        folder: of the files.
        names: patterns of their names.
    """
    for left in (each for name in names for each in folder.glob(f".{name}.{RANDOM}.new")):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink()


@contextmanager
def alone_in(folder: Path) -> Iterator[bool]:
    """Wait while another process saves into the folder; yield whether the system can do that."""
    if sys.platform == "win32":
        yield False
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # some network file systems lock no folders
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
