"""What reaches the disk, on each system."""

import os
from pathlib import Path

import pytest

from cosify.training.checkpoint import _flush
from tests.processes import run_distributed


def test_windows_flushes_no_folder_and_what_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "file").write_text("x")
    opened, flushed, whole = [], [], os.open

    def windows_open(path: Path, flags: int) -> int:
        if path.is_dir():
            raise PermissionError(13, "Permission denied")  # as there
        opened.append((path.name, flags))
        return whole(path, flags)

    def windows_fsync(descriptor: int) -> None:
        if opened[-1][1] & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        flushed.append(opened[-1][0])

    monkeypatch.setattr(os, "open", windows_open)
    monkeypatch.setattr(os, "fsync", windows_fsync)
    monkeypatch.setattr(os, "name", "nt")
    _flush(tmp_path)
    monkeypatch.undo()
    assert flushed == ["file"]


def test_posix_flushes_the_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    _flush(tmp_path)
    assert flushed == [path.stat().st_ino for path in (tmp_path / "file", tmp_path)]


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_ends_all_processes(tmp_path: Path) -> None:
    run_distributed("tests.training.checkpoint_worker", tmp_path, 2)
    for rank, reason in enumerate(("FileNotFoundError: ", "on another process")):
        said = (tmp_path / f"rank{rank}.txt").read_text()
        assert "the checkpoint of step 1 cannot be written to" in said
        assert reason in said
