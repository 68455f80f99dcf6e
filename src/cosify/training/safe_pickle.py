"""Checkpoints are read as tensors and numbers alone: nothing in their files is executed."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cosify.errors import InputError
from cosify.integrations import compat

INDEX = ".metadata"  # file of a sharded checkpoint that torch.distributed.checkpoint unpickles
_INDEX_MODULES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
_INDEX_NAMES = {
    ("collections", "OrderedDict"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
}


@contextmanager
def tensors_only(folder: Path) -> Iterator[None]:
    """Let torch.load read tensors and plain values alone, whatever its caller asks for.

    With weights_only=False, accelerate 1.15 loads what is registered with it, such as the EMA, and torch 2.14 the
    numbers of a sharded optimiser.

    Args:
        folder: checkpoint that is loaded within this context.

    Raises:
        ValueError: if the index of a sharded checkpoint names anything but torch's descriptions of tensors.
    """
    for index in folder.glob(f"*/{INDEX}"):
        _Index(io.BytesIO(index.read_bytes())).load()
    settings = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Index(compat.CarefulUnpickler):
    """Unpickler of an index; it allows only classes that hold data."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the class that the file names, if it is harmless."""
        fine = (module, name) in _INDEX_NAMES or (module == "torch" and isinstance(getattr(torch, name), torch.dtype))
        if fine or (module in _INDEX_MODULES and "." not in name):
            found = super().find_class(module, name)
            if fine or (isinstance(found, type) and found.__module__ in _INDEX_MODULES):
                return found
        raise InputError(f"it names {module}.{name}, expected torch's descriptions of tensors alone")
