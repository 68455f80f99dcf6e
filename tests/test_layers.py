"""How the package is divided: no module hides behind a function, no circles.  `make check` looks at the layers."""

import importlib
import pkgutil
import sys
from types import ModuleType

import pytest

import cosify


def modules() -> list[ModuleType]:
    found = pkgutil.walk_packages(cosify.__path__, "cosify.")
    return [importlib.import_module(module.name) for module in found]


def test_no_module_is_called_as_a_function() -> None:
    """Such a module cannot be reached from its package: the name stands for the function."""
    found = set()
    for module in modules():
        package, _, name = module.__name__.rpartition(".")
        for owner in (module, sys.modules[package]):
            if not isinstance(getattr(owner, name, module), ModuleType):
                found.add(module.__name__.removeprefix("cosify."))
    assert found == set()


def test_modules_do_not_import_each_other() -> None:
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("cosify", cache_dir=None)
    circles = set()
    for module in graph.modules - {"cosify"}:
        for other in graph.find_modules_directly_imported_by(module) - {"cosify"}:
            chain = graph.find_shortest_chain(other, module)
            if chain:
                circles.add(tuple(sorted({name.removeprefix("cosify.") for name in chain})))
    assert circles == set()
