"""Short operations joined by `torch.compile`.

On a GPU with many classes, a step of the search and the loss is some four hundred operations, most of which take the
host longer to start than the device to compute.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any, TypeVar

import torch

from cosify.functional.checks import values_hidden

Function = TypeVar("Function", bound=Callable[..., Any])
_wanted: ContextVar[bool] = ContextVar("fused", default=False)
OPTIONS: dict[str, Any] = {"dynamic": True}  # of torch.compile; sizes vary from batch to batch


def fusing(wanted: bool) -> AbstractContextManager[None]:
    """Let functions marked by `fused` run compiled inside, if it is wanted."""
    return nullcontext() if values_hidden() or not wanted else _fusing()


@contextmanager
def _fusing() -> Iterator[None]:
    token = _wanted.set(True)
    try:
        yield
    finally:
        _wanted.reset(token)


def is_fusing() -> bool:
    """Return whether such functions are compiled here."""
    return _wanted.get()


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function compiled; `torch.compile` itself takes seconds to import, so not before it is wanted."""
    return torch.compile(function, **OPTIONS)


def fused(function: Function) -> Function:
    """Mark a function of tensors that reads no value: inside `fusing(True)` it is compiled, at its first call."""

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        if values_hidden() or not _wanted.get():  # a compiled function holds those that it calls
            return function(*args, **kwargs)
        return compiled(function)(*args, **kwargs)

    return called  # type: ignore[return-value]
