"""Put a function of ours around one of another program."""

import functools
import inspect
from collections.abc import Callable
from typing import Any


def wrap_once(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace a function of a module or class by one that calls ours; a second call does nothing.

    Args:
        owner: the module or class.
        name: of its function, method or static method.
        around: called with the original function, followed by the arguments.
    """
    original = getattr(owner, name)
    if hasattr(original, "cosify_original"):
        return

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    wrapped.cosify_original = original  # type: ignore[attr-defined]
    is_static = isinstance(inspect.getattr_static(owner, name), staticmethod)
    setattr(owner, name, staticmethod(wrapped) if is_static else wrapped)
