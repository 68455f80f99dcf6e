"""Folders that appear whole, that one process writes to, and in which nothing of the user's is removed.

What is removed matches the names that we write; anything else stays.  No symbolic link is followed.
"""

import ctypes
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from fnmatch import fnmatch
from pathlib import Path
from weakref import WeakValueDictionary

from filelock import FileLock, Timeout

from cosify.errors import InputError
from cosify.files import beside

LOCK = ".lock"  # file in a folder that one process alone writes to
_held: WeakValueDictionary[Path, FileLock] = WeakValueDictionary()


def new_folder_beside(path: Path) -> Path:
    """Return a new, empty folder beside `path`, for `put_in_place`."""
    aside = beside(path)
    aside.mkdir(parents=True)
    return aside


def put_in_place(aside: Path, path: Path) -> Path | None:
    """Give a new folder its final name.

    Args:
        aside: the new folder, on the same disk.
        path: its name; a folder there changes places with it at once, where the system can (Linux).

    Returns:
        Where the folder that was there is now; None if there was none, or an empty one.
    """
    with suppress(OSError):
        path.rmdir()  # only if it is empty
    if not path.exists():
        aside.rename(path)
        return None
    if _exchanged(aside, path):
        return aside
    old = beside(path)
    path.rename(old)
    aside.rename(path)
    return old


def foreign_files(folder: Path, own: Sequence[str]) -> list[str]:
    """Return the files and links in a folder that match no pattern of ours, sorted.

    Args:
        folder: looked through; links are not followed.
        own: patterns of paths in it, such as `"checkpoints/step-*"`; `*` stands for any text, also with slashes.
    """
    names = (path.relative_to(folder).as_posix() for path in _entries(folder))
    return sorted(name for name in names if not any(fnmatch(name, pattern) for pattern in own))


def remove_own(folder: Path, own: Sequence[str]) -> None:
    """Remove what matches our patterns, and the folders that are then empty; what is the user's stays."""
    kept = set(foreign_files(folder, own))
    for path in list(_entries(folder)):
        if path.relative_to(folder).as_posix() not in kept:
            path.unlink(missing_ok=True)
    for root, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            os.rmdir(root)


def refuse_links_out(folder: Path) -> None:
    """Raise a ValueError if a symbolic link leads out of a folder: files written there would go elsewhere."""
    inside = os.path.realpath(folder)
    for path in _entries(folder):
        target = os.path.realpath(path)
        if path.is_symlink() and os.path.commonpath([inside, target]) != inside:
            raise InputError(
                f"{path} is a symbolic link to {target}, out of the folder, expected files of its own; replace it by"
                " what it points at"
            )


def new_output(output: str | None, data: str, name: str) -> Path:
    """Return the folder that a command writes: the one that was named, or a new `runs/DATE-DATA-NAME`."""
    named = f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{Path(data).name}-{name}"
    return Path(output) if output is not None else Path("runs") / named


def model_name(model: str) -> str:
    """Return the last part of a model's path, id or name, also of "."; "smoke" for none."""
    return Path(model).resolve().name if model else "smoke"


def refuse_results(record: Path, names: Sequence[str], *, overwrite: bool) -> None:
    """Raise if results would overwrite files that are there.

    Args:
        record: JSON file of the results, by whose keys ours are known.
        names: of the files beside it that will be written.
        overwrite: replace an earlier result.  What is not of ours is never replaced.

    Raises:
        FileExistsError: if they would.
    """
    if record.parent.exists() and not record.parent.is_dir():
        raise FileExistsError(f"{record.parent} is a file, expected a folder for the results; choose another --output")
    try:
        saved = json.loads(record.read_text(encoding="utf-8"))
        ours = isinstance(saved, dict) and {"command", "environment"} <= set(saved)
    except (OSError, ValueError, RecursionError):
        ours = False
    there = [name for name in (record.name, *names) if os.path.lexists(record.parent / name)]
    if there and not ours:
        raise FileExistsError(
            f"{record.parent} holds {there}, which this command has not written, expected a folder for its results;"
            " choose another --output"
        )
    if there and not overwrite:
        raise FileExistsError(
            f"{record.parent} holds an earlier result, expected a new or empty folder; choose another --output, or"
            " pass --overwrite to replace it"
        )


def locked(folder: Path) -> FileLock:
    """Take the lock of a folder, which is held as long as the returned object, or this process, lives.

    Raises:
        ValueError: if another process holds it.
        OSError: if the folder is not ours to write to.
    """
    path = folder.resolve()
    lock = _held.get(path)
    if lock is None:
        lock = FileLock(path / LOCK, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(
                f"{folder} is in use by another process, expected one at a time; wait for its end, or choose another"
                " folder"
            ) from error
        _held[path] = lock
    return lock


def moved_lock(lock: FileLock, folder: Path) -> None:
    """Note that a locked folder has another name now."""
    for path, each in list(_held.items()):
        if each is lock:
            del _held[path]
    _held[folder.resolve()] = lock


def _entries(folder: Path) -> Iterator[Path]:
    """Yield the files and links in a folder and those in it, without following links."""
    for root, folders, files in os.walk(folder):
        for name in files + [name for name in folders if os.path.islink(os.path.join(root, name))]:
            yield Path(root, name)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in one step; return False where the system cannot."""
    exchange, working_folder = 2, -100  # RENAME_EXCHANGE, AT_FDCWD
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    if rename is None:
        return False
    return bool(rename(working_folder, os.fsencode(one), working_folder, os.fsencode(other), exchange) == 0)
