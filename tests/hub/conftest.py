"""A saved folder, and readers of a model that start at once."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

from tests.hub.make_folder import main as make_folder
from tests.processes import stock_python


@pytest.fixture(autouse=True)
def quick_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", stock_python())


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `make_folder`, to be left as it is."""
    folder = tmp_path_factory.mktemp("saved")
    make_folder(str(folder))
    expected = torch.load(folder / "expected.pt", weights_only=True)
    assert len(expected["labels"].unique()) > 2, "the tests need several labels to agree on"
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage, or to publish."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))
