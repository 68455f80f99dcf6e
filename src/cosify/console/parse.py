"""Checked settings, from words and flags or a recipe file."""

import argparse
import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

from cosify.errors import InputError, NotFoundError
from cosify.settings import as_flag, as_types, check, is_key, types_of

Settings = TypeVar("Settings")
# Names in other programs that are not spelt like ours.
ABBREVIATED = {
    **dict.fromkeys(("bs", "per_device_train_batch_size", "train_batch_size"), "batch_size"),
    **dict.fromkeys(("wd", "l2"), "weight_decay"),
    **dict.fromkeys(("num_train_epochs", "max_epochs"), "epochs"),
    **dict.fromkeys(("amp", "precision", "fp16", "bf16"), "mixed_precision"),
    **dict.fromkeys(("arch", "backbone", "network"), "model"),
    **dict.fromkeys(("dataset", "data_dir", "dataset_name"), "data"),
    **dict.fromkeys(("gradient_accumulation_steps", "grad_accum_steps"), "accumulate"),
    **dict.fromkeys(("max_grad_norm", "clip_grad"), "clip_grad_norm"),
    **dict.fromkeys(("scheduler", "lr_scheduler_type", "sched"), "schedule"),
    **dict.fromkeys(("workers", "dataloader_num_workers"), "num_workers"),
    **dict.fromkeys(("temperature", "scale"), "kappa"),
    **dict.fromkeys(("output_dir", "run"), "output"),
}


def parse_arguments(
    kind: type[Settings],
    arguments: Sequence[str] | None = None,
    program: str | None = None,
    words: Sequence[str] = (),
    needed: Sequence[str] = (),
) -> Settings:
    """Read the words and flags of a command.

    A command with keys also takes `--config FILE`, a YAML file, and `--set key=value`; both `--set` and flags win over
    the file.  With `--resume RUN` all settings are those of that run.

    Args:
        kind: the command's settings.
        arguments: what follows the program's name; None for those of this process.
        program: its name, for messages.
        words: settings that are given as words, in this order.  A list takes all words but one for each setting after
            it.  Each may be given as a flag instead.
        needed: settings that must be given, except with `--smoke`.

    Returns:
        The checked settings.  A wrong word, flag, key or value ends the program with a message, as argparse does.
    """
    parser = _parser(kind, program)
    arguments = [_hyphens(each) for each in (sys.argv[1:] if arguments is None else arguments)]
    found, unknown = parser.parse_known_intermixed_args(arguments)
    given = vars(found)
    try:
        if unknown:
            raise InputError(f"unknown flag {unknown[0]}, expected one of --help-all; {_suggest(unknown[0], kind)}")
        given.update(_from_words(given.pop("words", []), words, kind, given))
        _refuse_empty(given)
        if not any(map(is_key, _fields(kind))):
            _refuse_missing(given, needed, words, parser.prog)
            made = kind(**given)
            check(made)
            return made
        if given.get("resume") is not None:
            others = [as_flag(name) for name in given if name != "resume"]
            if others:
                raise InputError(
                    f"resume takes every setting from the run's config.json, but {others} came too, expected --resume"
                    " alone; drop them, or start a new run"
                )
            return kind(**given)
        config, pairs = given.pop("config", None), given.pop("set", [])
        settings = {} if config is None else read_yaml(Path(config), kind)
        if settings.get("resume") is not None:
            raise InputError(f"resume stands in {config}, expected it alone; write --resume {settings['resume']}")
        _refuse_empty(settings)
        settings = {**settings, **_pairs(pairs, kind), **given}
        _refuse_missing(settings, needed, words, parser.prog)
        return kind(**settings)
    except (InputError, OSError) as error:
        parser.error(str(error))


def _hyphens(argument: str) -> str:
    """Return a flag with hyphens: other programs write --batch_size, we list --batch-size."""
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else argument


def _from_words(found: list[str], words: Sequence[str], kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that came as words; no word is left for those that came as flags."""
    lists = {entry.name for entry in _fields(kind) if get_origin(entry.type) is list}
    free = [name for name in words if name not in given]
    settings: dict[str, Any] = {}
    left = list(found)
    for position, name in enumerate(free):
        if name in lists:
            count = max(1, len(left) - len(free[position + 1 :]))
            settings[name], left = left[:count], left[count:]
        elif left:
            settings[name] = left.pop(0)
    if left:
        expected = " ".join(name.upper() for name in free) or "flags alone"
        raise InputError(f"the words {found} came, expected {expected}; see --help-all")
    return {name: value for name, value in settings.items() if value != []}


def _refuse_empty(settings: Mapping[str, Any]) -> None:
    """Raise for text that is empty: the default would be taken in its place, or the working folder for a path."""
    empty = [name for name, value in settings.items() if value == "" or (isinstance(value, list) and "" in value)]
    if empty:
        raise InputError(
            f"{empty[0]} is empty, expected text; drop it, or look at the shell variable that it came from"
        )


def _refuse_missing(settings: Mapping[str, Any], needed: Sequence[str], words: Sequence[str], program: str) -> None:
    """Raise for a setting without which a default would be taken that nobody means."""
    missing = [name for name in needed if name not in settings]
    if missing and not settings.get("smoke"):
        shown = {name: name.removesuffix("s").upper() for name in words}
        flags = {name: f"--{name.replace('_', '-')}" for name in needed if name not in words}
        usual = " ".join([*shown.values(), *(f"{flag} {name.upper()}" for name, flag in flags.items())])
        name = (shown | flags)[missing[0]]
        raise InputError(f"{name} is missing, expected {usual}; write {program} {usual}")


def _fields(kind: Any) -> tuple[Field[Any], ...]:
    return fields(kind)


def _parser(kind: type, program: str | None) -> argparse.ArgumentParser:
    """Return the parser of a command; it returns what was typed, without defaults."""
    parser = argparse.ArgumentParser(
        program, usage=f"{program or '%(prog)s'} --help", add_help=False, argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("words", nargs="*")
    for entry in _fields(kind):
        if not is_key(entry):
            parser.add_argument(as_flag(entry.name), **_reading(entry.type))
            if entry.type is bool:
                parser.add_argument(as_flag(f"no_{entry.name}"), dest=entry.name, action="store_false")
    if any(map(is_key, _fields(kind))):
        parser.add_argument("--config")
        parser.add_argument("--set", nargs="+", action="extend")
    return parser


def _reading(expected: Any) -> dict[str, Any]:
    """Return how argparse reads a value of that type."""
    (kind,) = {each for each in types_of(expected) if each is not NoneType}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if get_origin(kind) is list:
        return {"nargs": "+", "action": "extend", "type": get_args(kind)[0]}
    return {"action": "store_true"} if kind is bool else {"type": kind}


def read_yaml(path: Path, kind: type) -> dict[str, Any]:
    """Return the settings in a YAML file.

    Args:
        path: of the file.
        kind: whose fields the keys must be.

    Raises:
        ValueError: if it is no mapping, or has a key that is no setting or a value of another type.
        OSError: if it cannot be read.
    """
    import yaml

    from cosify.console.yaml_text import KeyTwiceError, read_text

    try:
        content = read_text(path.read_text(encoding="utf-8"), _texts(kind))
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} does not exist, expected a recipe of settings; check its path") from error
    except KeyTwiceError as error:
        raise InputError(f"{path} has {error}, expected each key once; drop one of them") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read as YAML ({_one_line(error)}), expected lines such as 'epochs: 30'"
        ) from error
    if content is None:
        raise InputError(f"{path} holds no settings, expected key: value lines such as 'epochs: 30'")
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {type(content).__name__}, expected key: value lines such as 'epochs: 30'")
    return _checked(content, kind, str(path))


def _pairs(pairs: Sequence[str], kind: type) -> dict[str, Any]:
    import yaml

    from cosify.console.yaml_text import KeyTwiceError, read_value

    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set has {pair!r}, expected key=value, for example label_smoothing=0.1")
        if key in {entry.name for entry in _fields(kind) if not is_key(entry)}:
            raise InputError(
                f"--set has {key!r}, which is a flag, expected a key of a recipe; write {as_flag(key)} {value}"
            )
        if key not in {entry.name for entry in _fields(kind)}:
            raise InputError(f"--set has {key!r}, expected a key that --help-all lists; {_suggest(key, kind)}")
        try:
            settings[key] = read_value(value, key in _texts(kind))
        except KeyTwiceError as error:
            raise InputError(f"--set has {pair!r} with {error}, expected each key once; drop one of them") from error
        except yaml.YAMLError as error:
            raise InputError(
                f"--set has {pair!r}, which cannot be read as YAML ({_one_line(error)}), expected key=value, such as"
                " label_smoothing=0.1"
            ) from error
    return _checked(settings, kind, "--set")


def _texts(kind: type) -> set[str]:
    """Return the settings that are text, or lists of it."""
    return {entry.name for entry in _fields(kind) if {str, list[str]} & set(types_of(entry.type))}


def _checked(content: Mapping[str, Any], kind: type, where: str) -> dict[str, Any]:
    known = {entry.name for entry in _fields(kind)}
    for key in content:
        if key not in known:
            raise InputError(
                f"unknown key {key!r} in {where}, expected flags or recipe keys; {_suggest(str(key), kind)}"
            )
    return as_types(content, kind, where)


def _suggest(name: str, kind: type) -> str:
    names = [entry.name for entry in _fields(kind)]
    given = name.strip("-").split("=")[0].replace("-", "_").lower()
    initials = ["".join(word[0] for word in given.split("_") if word)]  # learning_rate: lr
    short = [name for name in names if name == ABBREVIATED.get(given) or name in initials]
    close = short or difflib.get_close_matches(given, names, 1)
    if not close:
        return "check the spelling"
    if not name.startswith("--"):
        return f"did you mean {close[0]}?"
    keys = {entry.name for entry in _fields(kind) if is_key(entry)}
    return f"did you mean {f'--set {close[0]}=VALUE' if close[0] in keys else as_flag(close[0])}?"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
