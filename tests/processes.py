"""Start helper processes on the loopback interface, offline, without contention for the cores."""

import os
import socket
import subprocess
from pathlib import Path

from tests.warm import interpreter

ROOT = Path(__file__).parents[1]
LIBRARIES = ("torch", "torchvision", "torch.distributed.tensor", "scipy.optimize", "pandas", "pyarrow", "tokenizers")
STOCK = ("timm", "transformers.pipelines", "transformers.models.auto.modeling_auto")


def environment(**extra: str) -> dict[str, str]:
    """Return the environment of a program: offline and of one thread, as tests/conftest.py makes it."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **extra}


def python() -> str:
    """Return the path of an interpreter that has imported cosify."""
    return interpreter("cosify.training", base=stock_python())


def stock_python() -> str:
    """Return the path of one that has imported timm and transformers, but not cosify."""
    return interpreter(*STOCK, base=blank_python())


def blank_python() -> str:
    """Return the path of one that has imported none of them: a program decides in which order it does."""
    return interpreter(*LIBRARIES)


def run_python(*arguments: str, timeout: float = 300, stock: bool = False, **extra: str) -> str:
    """Run a program and return what it printed; fail with its error output.

    A program in words (-c) decides whether it imports cosify, one that talks to a hub, or is of
    `stock` libraries alone, has timm and transformers.
    """
    online = any(name.startswith("HF_") for name in extra)
    program = arguments[0] == "-c"
    done = subprocess.run(
        [stock_python() if stock or online else blank_python() if program else python(), *arguments],
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{arguments} exited {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_distributed(module: str, folder: Path, world_size: int, *arguments: str) -> None:
    """Run `python -m module folder arguments` once a rank, over gloo."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size)}
    ranks = [
        subprocess.Popen(
            [python(), "-m", module, str(folder), *arguments],
            env=environment(**shared, RANK=str(rank), LOCAL_RANK=str(rank)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]
    outputs = [process.communicate(timeout=240)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0] * world_size, "\n".join(outputs)
