"""Help fits a screen, and names what there is."""

from dataclasses import fields

import pytest

from cosify.__main__ import COMMANDS, command, main
from cosify.console.help import SCREEN, short_help
from cosify.settings import is_key


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(words)
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [(), *((name,) for name in COMMANDS)])
def test_help_fits_a_screen(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    lines = help_of(capsys, *words, "--help").splitlines()
    assert len(lines) < SCREEN[1]  # the line that is typed next needs one, too
    assert max(map(len, lines)) <= SCREEN[0]
    assert lines[0].startswith(" ".join(["usage: cosify", *words]))


@pytest.mark.parametrize("name", COMMANDS)
def test_all_help_explains_every_setting(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = help_of(capsys, name, "--help-all")
    known = command(name)
    for entry in fields(known.settings):
        shown = f"  {entry.name}\n" if is_key(entry) else f"  --{entry.name.replace('_', '-')}"
        assert shown in found or entry.name in known.words, entry.name
        assert " ".join(entry.metadata["help"].split()) in " ".join(found.split())
    assert known.text.strip() in found
    assert "_" not in "".join(word for word in found.split() if word.startswith("--"))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_a_command_are_its_own(name: str) -> None:
    lines = [line.strip() for line in command(name).text.splitlines() if line.startswith("    ")]
    assert lines
    assert all(f"cosify {name}" in line or name == "card" for line in lines)


def test_few_flags_and_many_keys_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    found, known = help_of(capsys, "train", "--help"), command("train")
    assert f"{len(fields(known.settings)) - len(known.shown)} more, and all of this text" in found
    assert "--epochs N              Passes over the training set [30]" in found


def test_a_default_of_zero_is_told() -> None:
    known = command("probe")
    lines = short_help("cosify probe", known.settings, known.text, known.words, ("seed", "overwrite")).splitlines()
    assert [line.endswith("[0]") for line in lines if "--seed" in line] == [True]
    assert [line.endswith("]") for line in lines if "--overwrite" in line] == [False]


@pytest.mark.parametrize(("typed", "advice"), [("finetun", "did you mean finetune?"), ("xyz", "see cosify --help")])
def test_a_misspelt_command(typed: str, advice: str) -> None:
    with pytest.raises(SystemExit, match=rf"error: unknown command '{typed}', expected one of train, .*; {advice}"):
        main([typed])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert help_of(capsys, "--version").startswith("cosify 0.")
