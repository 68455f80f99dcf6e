"""The environment of a run: versions, commit and device, but no names of machines or users."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("cosify", "torch", "torchvision", "timm", "transformers", "datasets", "accelerate", "numpy")


def describe_environment(device: torch.device, world_size: int) -> dict[str, Any]:
    """Return versions, commit of the source tree (None if installed without one) and device, ready for JSON.

    Args:
        device: where the training runs.
        world_size: number of processes.
    """
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "num_threads": torch.get_num_threads(),
        "world_size": world_size,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit that this file belongs to, with `-dirty` if tracked files of the package were changed since."""
    package = Path(__file__).parents[1]

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *words], cwd=package, capture_output=True, text=True, check=False)

    try:
        ours = f"HEAD:./{Path(__file__).relative_to(package).as_posix()}"
        if git("cat-file", "-e", ours).returncode != 0:  # installed inside someone else's repository
            return None
        commit = git("rev-parse", "HEAD").stdout.strip()
        is_same = git("diff", "--quiet", "HEAD", "--", ".").returncode == 0  # results beside it may have grown
    except FileNotFoundError:  # no git on this machine
        return None
    return commit if is_same else f"{commit}-dirty"
