"""Settings of any command: read from words and flags, checked by their rules."""

from dataclasses import dataclass
from typing import Any

import pytest

from cosify.__main__ import command, main
from cosify.console import parse_arguments
from cosify.errors import InputError
from cosify.settings import AT_LEAST_1, SHARE, check, flag, key


@dataclass(frozen=True)
class Command:
    """A command without keys."""

    model: str = flag("", "The model.")
    num_images: int | None = flag(None, "Images, 100 % of them by default.", AT_LEAST_1)
    sizes: list[int] = flag([3], "Sides.")
    quick: bool = flag(False, "Less.")

    def __post_init__(self) -> None:
        check(self)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], Command()),
        (["m", "--num-images", "3"], Command("m", 3)),
        (["--num_images", "3", "--quick", "--model", "m"], Command("m", 3, quick=True)),
        (["--sizes", "1", "2", "--quick", "--no-quick"], Command(sizes=[1, 2])),
        (["--quick", "m"], Command("m", quick=True)),
        (["--num-images", "3", "m"], Command("m", 3)),
        (["--sizes", "1", "--sizes", "2", "5"], Command(sizes=[1, 2, 5])),
        (["--num-images=3", "--sizes", "1"], Command(num_images=3, sizes=[1])),
    ],
)
def test_words_and_flags(words: list[str], expected: Command) -> None:
    assert parse_arguments(Command, words, words=("model",)) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-images", "0"], "num_images is 0, expected at least 1, or nothing; change --num-images"),
        (
            ["--num-image", "1"],
            "unknown flag --num-image, expected one of --help-all; did you mean --num-images?",
        ),
        (["--quick", "m"], "the words ['m'] came, expected flags alone; see --help"),
        (["--config", "x"], "unknown flag --config"),
    ],
)
def test_wrong_flags(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(Command, words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@dataclass(frozen=True)
class Several:
    """A command that takes any number of one thing."""

    models: list[str] = flag([], "Models.")
    data: str = flag("digits", "Images.")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["m"], Several(["m"])),
        (["m", "d"], Several(["m"], "d")),
        (["a", "b", "d"], Several(["a", "b"], "d")),
        (["a", "b", "--data", "d"], Several(["a", "b"], "d")),
        (["d", "--models", "a", "b"], Several(["a", "b"], "d")),
        ([], Several()),
        (["--models", "a", "--models", "b"], Several(["a", "b"])),
    ],
)
def test_the_last_word_is_the_last_setting(words: list[str], expected: Several) -> None:
    assert parse_arguments(Several, words, words=("models", "data")) == expected


def test_a_shell_variable_that_is_not_set_is_no_default(capsys: pytest.CaptureFixture[str]) -> None:
    for words, name in ((["m", ""], "data"), (["", "d"], "models"), (["m", "--data", ""], "data")):
        with pytest.raises(SystemExit):
            parse_arguments(Several, words, words=("models", "data"))
        assert f"{name} is empty, expected text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *((name, ["--batch-size", "0"]) for name in ("evaluate", "probe", "scan", "verify")),
        *((name, ["--num-workers=-1"]) for name in ("evaluate", "probe", "scan", "verify")),
        ("evaluate", ["--limit", "-3"]),
        ("scan", ["--limit", "0"]),
        ("probe", ["--limit-train", "0"]),
        ("probe", ["--hold-out", "1"]),
        ("probe", ["--seed", "-1"]),
        *((name, ["--seed", str(2**32)]) for name in ("evaluate", "probe")),
        ("scan", ["--image-size", "0"]),
        ("verify", ["--folds", "1"]),
    ],
)
def test_numbers_that_cannot_be_are_refused_before_any_work(
    name: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command(name).run(["m", "d", *words], name)
    flag_name = words[0].partition("=")[0]
    assert f"change {flag_name}" in capsys.readouterr().err


@dataclass(frozen=True)
class Keyed:
    """One key of a recipe."""

    share: Any = key(0.5, "A share.", SHARE)
    most: float | None = key(None, "Largest.", SHARE)


def test_a_key_is_named_where_it_stands() -> None:
    check(Keyed())
    with pytest.raises(InputError, match=r"share is 2, expected a share in \[0, 1\]; change share in the recipe"):
        check(Keyed(share=2))
    with pytest.raises(InputError, match=r"most is nan, expected a share in \[0, 1\], or nothing"):
        check(Keyed(most=float("nan")))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "SIZE is missing, expected MODEL SIZE --num-images NUM_IMAGES; write"),
        (["m", "3"], "--num-images is missing, expected MODEL SIZE --num-images NUM_IMAGES; write"),
    ],
)
def test_what_is_needed(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(Command, words, words=("model", "sizes"), needed=("sizes", "num_images"))
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "usual"),
    [
        ("evaluate", "MODEL DATA"),
        ("verify", "MODEL DATA"),
        ("publish", "MODEL REPO"),
        ("convert-rec", "FOLDER OUTPUT"),
    ],
)
def test_a_command_without_words_names_them(name: str, usual: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name])
    assert ended.value.code == 2
    assert f" is missing, expected {usual}; write cosify {name} {usual}" in capsys.readouterr().err
