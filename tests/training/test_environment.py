"""The commit of a run is that of the package, whatever else lies in the repository."""

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cosify.training import environment


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e@e"]
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def in_repository(folder: Path) -> tuple[Path, Any]:
    """Return a copy of the module inside a new repository, and the module."""
    file = folder / "src" / "package" / "training" / "environment.py"
    file.parent.mkdir(parents=True)
    shutil.copy(environment.__file__, file)
    (folder / "results.json").write_text("{}")
    git(folder, "init", "-q")
    spec = importlib.util.spec_from_file_location("copied_environment", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return file, module


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_only_changes_of_the_package_count(tmp_path: Path) -> None:
    file, module = in_repository(tmp_path)
    assert module._commit() is None, "not tracked: installed into somebody's repository"
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert module._commit() == head
    (tmp_path / "results.json").write_text('{"grown": 1}')
    assert module._commit() == head
    (file.parents[1] / "loop.py").touch()
    git(tmp_path, "add", "-A")
    assert module._commit() == f"{head}-dirty"


def test_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment._commit() is None
