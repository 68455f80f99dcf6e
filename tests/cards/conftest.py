"""The readers of a model start at once."""

import sys

import pytest

from tests.processes import stock_python


@pytest.fixture(autouse=True)
def quick_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", stock_python())
