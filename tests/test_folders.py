"""Files and folders: whole or not there, never somebody else's."""

import ctypes
import os
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

import cosify.folders
from cosify.files import left_aside, write_whole, written_aside
from cosify.folders import (
    LOCK,
    foreign_files,
    locked,
    put_in_place,
    refuse_links_out,
    refuse_results,
    remove_own,
)


def test_a_link_that_waits_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "file").symlink_to(precious)
    (tmp_path / ".file.new").symlink_to(precious)  # the name that was written to once
    write_whole(tmp_path / "file", "ours")
    assert precious.read_text() == "mine"
    assert (tmp_path / "file").read_text() == "ours"
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / ".file.new").is_symlink(), "a file of the user's is gone"


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", "before")
    os.chmod(tmp_path / "file", 0o640)

    def fail() -> None:
        with written_aside(tmp_path / "file") as aside:
            aside.write_text("half")
            assert left_aside(tmp_path / "file") == [aside]
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "before"


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_takes_the_place_of_another(exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(cosify.folders, "_exchanged", lambda *_: False)
    elif not hasattr(ctypes.CDLL(None), "renameat2"):
        exchange = False
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    before = put_in_place(tmp_path / "new", tmp_path / "old")
    assert before is not None
    assert (before == tmp_path / "new") == exchange
    assert ((tmp_path / "old" / "file").read_text(), (before / "file").read_text()) == ("new", "old")
    (tmp_path / "empty").mkdir()
    assert put_in_place(before, tmp_path / "empty") is None
    assert (tmp_path / "empty" / "file").read_text() == "old"


def test_only_what_is_ours_is_removed(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    for path in (folder / "ours", folder / "parts" / "a" / "b", folder / "notes.txt", elsewhere / "ours"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (folder / "link").symlink_to(elsewhere)
    (folder / "parts" / "link").symlink_to(elsewhere)
    own = ("ours", "parts/*")
    assert foreign_files(folder, own) == ["link", "notes.txt"]
    remove_own(folder, own)
    assert sorted(path.name for path in folder.iterdir()) == ["link", "notes.txt"]
    assert (elsewhere / "ours").read_text() == "x"


def test_links_out_of_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run" / "inside").mkdir(parents=True)
    (tmp_path / "run" / "link").symlink_to("inside")
    refuse_links_out(tmp_path / "run")
    (tmp_path / "run" / "inside" / "out").symlink_to("../../run2")
    with pytest.raises(ValueError, match=r"inside/out is a symbolic link to .*/run2, out of the folder, expected"):
        refuse_links_out(tmp_path / "run")


def test_results_are_overwritten_only_if_they_are_ours_and_it_is_asked_for(tmp_path: Path) -> None:
    record = tmp_path / "scan.json"
    refuse_results(record, ("scan.md",), overwrite=False)
    record.write_text('{"command": "scan", "environment": {}}')
    (tmp_path / "scan.md").write_text("ours")
    with pytest.raises(FileExistsError, match=r"holds an earlier result, .*; choose another --output, or pass --overw"):
        refuse_results(record, ("scan.md",), overwrite=False)
    refuse_results(record, ("scan.md",), overwrite=True)
    record.write_text('{"patient": 3}')
    with pytest.raises(FileExistsError, match=r"holds \['scan.json', 'scan.md'\], which this command has not written"):
        refuse_results(record, ("scan.md",), overwrite=True)
    record.unlink()
    with pytest.raises(FileExistsError, match=r"holds \['scan.md'\], .*; choose another --output"):
        refuse_results(record, ("scan.md",), overwrite=True)
    with pytest.raises(FileExistsError, match=r"scan.md is a file, expected a folder for the results; choose another"):
        refuse_results(tmp_path / "scan.md" / "scan.json", (), overwrite=True)


def test_a_lock_keeps_others_out_as_long_as_its_object_lives(tmp_path: Path) -> None:
    lock = locked(tmp_path)
    assert locked(tmp_path) is lock, "this process is kept out by itself"
    with pytest.raises(Timeout):
        FileLock(tmp_path / LOCK).acquire(timeout=0)
    del lock
    with (
        FileLock(tmp_path / LOCK),
        pytest.raises(ValueError, match=r"is in use by another process, expected one at a time; wait for its end"),
    ):
        locked(tmp_path)
    locked(tmp_path)
