"""A stand-in for a device without float64: tensors say that they lie there, and are computed on the CPU.

What an Apple GPU refuses is refused here too: a float64 tensor that is made there or moved there, and an operation on
tensors of two devices.  It registers a backend with torch, for the rest of the process: use it in one of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

backend_registration._setup_privateuseone_for_python_backend("lesser")
DEVICE = torch.device("lesser", 0)
torch.get_device_module(DEVICE).manual_seed = torch.manual_seed  # its numbers are drawn on the CPU
ACROSS_DEVICES = ("copy_", "_to_copy", "index", "index_put_", "_index_put_impl_")  # indices may lie on the CPU


class StandIn(Tensor):
    """A tensor that says it lies on the device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "StandIn":
        made: StandIn = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE,
        )
        made.inner = inner
        return made

    def tolist(self) -> Any:
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


@contextmanager
def stand_in_device() -> Iterator[torch.device]:
    """Let tensors be made on the device inside."""
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor then makes its tensor on the CPU, and moves it visibly
    try:
        with _Mode():
            yield DEVICE
    finally:
        torch._C._set_only_lift_cpu_tensors(False)


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU, and let the result lie where it would."""
    name = func.overloadpacket.__name__
    inputs = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    here = [each for each in inputs if isinstance(each, StandIn)]
    if here and name not in ACROSS_DEVICES:
        for each in inputs:
            if not isinstance(each, StandIn) and each.ndim > 0:
                raise RuntimeError(f"{name} with tensors of two devices")
    place = kwargs.get("device")
    there = bool(here) if place is None else torch.device(place).type == DEVICE.type
    if place is not None and there:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    found = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    known = {id(_inner(each)): each for each in inputs}  # what is written in place stays what it is

    def placed(result: Any) -> Any:
        if not isinstance(result, Tensor):
            return result
        if id(result) in known:
            return known[id(result)]
        if there and result.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"{name} makes a {result.dtype} tensor on {DEVICE}, which has no float64")
        return StandIn(result) if there else result

    return tree_map(placed, found)


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, StandIn) else value
