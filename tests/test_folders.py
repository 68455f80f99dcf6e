"""Files and folders: whole or not there, never somebody else's."""

import ctypes
import os
from pathlib import Path

import pytest
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file

import cosify.folders
from cosify.files import left_aside, remove_left, write_whole, written_aside
from cosify.folders import (
    LOCK,
    foreign_files,
    locked,
    put_in_place,
    refuse_links_out,
    refuse_results,
    remove_own,
)
from tests.killing import full_disk, killed


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
            assert left_aside(tmp_path / "file") == [aside.parent]
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "before"


def write_tensors(path: Path) -> None:
    with written_aside(path) as aside:
        save_file({"ones": torch.ones(1000)}, aside)


def test_all_that_safetensors_leaves_is_in_a_folder_that_we_know(tmp_path: Path) -> None:
    killed(lambda: write_tensors(tmp_path / "file"))
    assert left_aside(tmp_path / "file") == list(tmp_path.iterdir())
    (left,) = (path for folder in tmp_path.iterdir() for path in folder.iterdir())
    assert left.name.startswith(".tmp"), "safetensors has changed: is its file still removed?"
    remove_left(tmp_path, "f*")
    assert list(tmp_path.iterdir()) == []


def test_nothing_else_is_removed_with_what_was_left(tmp_path: Path) -> None:
    name = f".file.{'0' * 16}.new"
    stay = ["file", ".tmpA1b2C3", ".file.new", ".file.0123.new", name.replace("file", "other"), f"{name}er", "mine"]
    for each in stay:
        (tmp_path / each).mkdir()
        (tmp_path / each / "file").write_text("mine")
    (tmp_path / name.replace("0", "1")).write_text("of an earlier version")
    (tmp_path / name).symlink_to(tmp_path / "mine")
    remove_left(tmp_path, "file")
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*")} == {f"{each}/file" for each in stay}
    assert {path.name for path in tmp_path.iterdir()} == set(stay)


def test_tensors_have_the_rights_of_other_files(tmp_path: Path) -> None:
    write_whole(tmp_path / "text", "x")
    write_tensors(tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "text").stat().st_mode
    assert torch.equal(load_file(tmp_path / "file")["ones"], torch.ones(1000))


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", "before")
    with (
        full_disk(),
        pytest.raises(OSError, match=r"tmp.*/file cannot be written \(.*File too large.*\), expected a folder"),
    ):
        write_tensors(tmp_path / "file")
    with full_disk(), pytest.raises(OSError, match=r"File too large: '.*/file'"):
        write_whole(tmp_path / "file", "x" * 10_000)
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
