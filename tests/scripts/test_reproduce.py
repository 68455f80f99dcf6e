"""scripts/reproduce.py: commands run in the top of the checkout, and one that fails ends it with its code."""

import logging
from pathlib import Path

import pytest

from scripts import reproduce


def test_commands_run_in_the_top_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = f"import os; assert os.path.samefile('.', {str(reproduce.ROOT)!r})"
    reproduce.run(["python", "-c", code])


def test_a_command_that_fails_ends_with_its_code(caplog: pytest.LogCaptureFixture) -> None:
    for code, script in ((3, "import sys; sys.exit(3)"), (137, "import os; os.kill(os.getpid(), 9)")):
        caplog.clear()
        with caplog.at_level(logging.ERROR, "cosify"), pytest.raises(SystemExit) as ended:
            reproduce.run(["python", "-c", script])
        assert ended.value.code == code
        (line,) = caplog.messages
        assert line.startswith("error: this command ended with exit code")


def test_data_that_lie_here_are_found_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar").mkdir()
    args = reproduce.ReproduceArguments(cifar100="cifar", cifar10="cifar:test")
    found = reproduce.from_anywhere(args)
    assert (found.cifar100, found.cifar10) == (str(tmp_path / "cifar"), str(tmp_path / "cifar:test"))
    assert (found.lfw, found.omniglot) == (args.lfw, args.omniglot), "what does not lie here"
    monkeypatch.chdir(reproduce.ROOT)
    assert reproduce.from_anywhere(args) == args
