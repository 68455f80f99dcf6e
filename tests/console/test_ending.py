"""How a command ends: one line for what the user is to mend, a traceback for what is not."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cosify.console import Command, one_line_errors
from cosify.errors import AccuracyDroppedError, InputError, Interrupted
from cosify.files import write_whole
from tests.killing import full_disk
from tests.processes import environment, python


@pytest.mark.parametrize(
    "error", [InputError("mend it"), AccuracyDroppedError("mend it"), OSError("mend it"), FileExistsError("mend it")]
)
def test_our_errors_are_one_line(error: Exception) -> None:
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise error
    assert ended.value.code == "error: mend it"


def test_the_systems_errors_are_one_line_where_they_name_a_file(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended, one_line_errors():
        (tmp_path / "no" / "such").read_text()
    assert ended.value.code == f"error: [Errno 2] No such file or directory: '{tmp_path / 'no' / 'such'}'"


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(SystemExit) as ended, one_line_errors():
        write_whole(tmp_path / "file", "x" * 10_000)
    assert ended.value.code == f"error: [Errno 27] File too large: '{tmp_path / 'file'}'"


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("a bug"), OSError(22, "Invalid argument")])
def test_a_fault_of_ours_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)), one_line_errors():
        raise error


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (Interrupted("saved", 15), 143)])
def test_signals_end_with_their_code(stop: BaseException, code: int) -> None:
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise stop
    assert ended.value.code == code


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help"], ["train", "--help-all"], ["backbones", "--json"]])
def test_output_that_nobody_reads_ends_a_command_without_a_word(words: list[str], unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [python(), "-m", "cosify", *words],
        env=environment(PYTHONUNBUFFERED=unbuffered),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_another_broken_pipe_keeps_its_traceback() -> None:
    with pytest.raises(BrokenPipeError), one_line_errors():
        raise BrokenPipeError(32, "Broken pipe")


def test_a_closed_output_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    Command(lambda _: None, Nothing, "", needs_lab=False).run([], "program")


@dataclass(frozen=True)
class Nothing:
    """No flags."""


def test_commands_end_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: Nothing) -> None:
        raise InputError("mend it")

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit, match="error: mend it"):
        Command(failing, Nothing, "").run()
