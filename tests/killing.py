"""Kill a process in the middle of a write, and fill the disk."""

import os
import resource
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import safetensors.torch

MOST = 100  # bytes of a file, fewer than any that the tests write


@contextmanager
def full_disk(most: int = MOST) -> Iterator[None]:
    """Let each write beyond so many bytes of a file fail, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def killed(run: Callable[[], object], *, rename: int | None = None) -> None:
    """Call `run` in a process that is killed: in its first write of tensors, or before a rename, counted from 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns where there are threads
        process = os.fork()
    if process == 0:
        try:
            _die_in_write() if rename is None else _die_at(rename)
            run()
        finally:
            os._exit(0)
    ended = os.waitpid(process, 0)[1]
    expected = signal.SIGXFSZ if rename is None else signal.SIGKILL
    assert os.WIFSIGNALED(ended), "the process ended by itself"
    assert os.WTERMSIG(ended) == expected


def _die_in_write() -> None:
    module: Any = safetensors.torch
    write = module.serialize_file

    def writing(*args: Any, **kwargs: Any) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # it kills, which Python otherwise forbids
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (MOST, MOST))
        write(*args, **kwargs)

    module.serialize_file = writing


def _die_at(rename: int) -> None:
    replace, renames = os.replace, 0

    def replacing(*paths: Any) -> None:
        nonlocal renames
        if renames == rename:
            os.kill(os.getpid(), signal.SIGKILL)
        renames += 1
        replace(*paths)

    os.replace = replacing  # type: ignore[assignment]
