"""An interpreter that starts at once, because what is slow to import is imported already.

torch, timm and transformers take 3 to 12 s to import, and the tests start some three hundred programs.  `interpreter`
names a file that is used as `sys.executable` is: with the same arguments, environment, folder, pipes, signals and exit
status.  Behind it a server that has imported the modules forks a process for every program.

What differs: a program that crashed, was killed or has replaced itself (`os.exec`) ends with status 1, and one that has
stopped itself is not ended by SIGKILL.
"""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
PYTHON = sys.executable


@functools.cache
def interpreter(*modules: str) -> str:
    """Start the server of an interpreter that has imported `modules`, once in this process; return its path."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    server = subprocess.Popen(
        [PYTHON, str(FOLDER / "server.py"), str(folder / "socket"), *modules],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.kill)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n", f"the server of {modules} did not start"
    path = folder / "python"
    path.write_text(f"#!{PYTHON} -IS\n" + (FOLDER / "client.py").read_text())
    path.chmod(0o755)
    return str(path)
