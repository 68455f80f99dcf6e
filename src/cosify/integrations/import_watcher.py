"""Run a function when a module is imported, now or later, without importing it."""

import logging
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

logger = logging.getLogger("cosify")


class _Watcher(MetaPathFinder):
    """Finds the watched modules as Python would, and calls back once their code has run."""

    def __init__(self) -> None:
        self.callbacks: dict[str, Callable[[ModuleType], object]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module's own spec with a callback behind its loader."""
        callback = self.callbacks.get(fullname)
        spec = PathFinder.find_spec(fullname, path) if callback is not None else None
        if callback is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _call(callback, module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _call(callback: Callable[[ModuleType], object], module: ModuleType) -> None:
    """Call back; an error is a warning, for the import is the user's, who may not want anything of ours."""
    try:
        callback(module)
    except Exception as error:
        logger.warning(
            "cosify cannot add itself to %s (%s: %s) and leaves it as it is; cosify.convert(model) works without",
            module.__name__,
            type(error).__name__,
            error,
        )


_watcher = _Watcher()


def on_import(name: str, callback: Callable[[ModuleType], object]) -> None:
    """Call `callback(module)` at once if module `name` is loaded, else right after its first import."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        _call(callback, loaded)
        return
    _watcher.callbacks[name] = callback
    if _watcher not in sys.meta_path:
        sys.meta_path.insert(0, _watcher)
