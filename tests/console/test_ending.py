"""How a command ends: one line for what the user is to mend, a traceback for what is not."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cosify.console import Command, one_line_errors
from cosify.errors import AccuracyDroppedError, InputError, Interrupted


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


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("a bug"), OSError(22, "Invalid argument")])
def test_a_fault_of_ours_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)), one_line_errors():
        raise error


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (Interrupted("saved", 15), 143)])
def test_signals_end_with_their_code(stop: BaseException, code: int) -> None:
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise stop
    assert ended.value.code == code


@dataclass(frozen=True)
class Nothing:
    """No flags."""


def test_commands_end_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: Nothing) -> None:
        raise InputError("mend it")

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit, match="error: mend it"):
        Command(failing, Nothing, "").run()
