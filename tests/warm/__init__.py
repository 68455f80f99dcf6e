"""An interpreter that starts at once, because what is slow to import is imported already.

torch, timm and transformers take 3 to 12 s to import, and the tests start some three hundred programs.  `interpreter`
names a file that is used as `sys.executable` is: with the same arguments, environment, folder, pipes, signals and exit
status.  Behind it a server that has imported the modules forks a process for every program.  Where TESTS_WARM_NESTED
names such a file, it is the `sys.executable` of every program.

What differs: a program that crashed, was killed or has replaced itself (`os.exec`) ends with status 1, and one that has
stopped itself is not ended by SIGKILL.
"""

import functools
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
PYTHON = sys.executable
SERVERS = "TESTS_WARM"  # names the folder of the servers that the processes below share
_started: list[subprocess.Popen[bytes]] = []


@contextmanager
def shared() -> Iterator[None]:
    """Let this process and those that it starts share their servers, which end with it."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    os.environ[SERVERS] = str(folder)
    try:
        yield
    finally:
        del os.environ[SERVERS]
        for pid in folder.glob("*/pid"):
            os.kill(int(pid.read_text()), signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def interpreter(*modules: str, base: str = PYTHON) -> str:
    """Return the path of an interpreter that has imported `modules`; start its server where none runs in `shared`.

    Args:
        modules: to import.
        base: the interpreter that runs the server; another of these, and what that has imported is there already.
    """
    folder = Path(os.environ[SERVERS], hashlib.sha256(repr(modules).encode()).hexdigest()[:8])
    path = folder / "python"
    with FileLock(f"{folder}.lock"):
        if not path.exists():
            _start(folder, modules, base)
            path.write_text(f"#!{PYTHON} -IS\n" + (FOLDER / "client.py").read_text())
            path.chmod(0o755)
    return str(path)


def _start(folder: Path, modules: tuple[str, ...], base: str) -> None:
    folder.mkdir()
    server = subprocess.Popen(
        [base, str(FOLDER / "server.py"), str(folder / "socket"), *modules],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    (folder / "pid").write_text(str(server.pid))
    _started.append(server)  # one that is forgotten while it runs is warned of
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n", f"the server of {modules} did not start"
