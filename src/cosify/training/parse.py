"""From the command line, a recipe file and an earlier run's config.json to checked settings: any dataclass of flags."""

import argparse
import difflib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, fields
from itertools import takewhile
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

from cosify.errors import InputError
from cosify.settings import is_key
from cosify.training.run_folder import read_config

Settings = TypeVar("Settings")
# What other programs call a setting, where no spelling is near ours.
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
    description: str | None = None,
    positional: Sequence[str] = (),
) -> Settings:
    """Read the flags of a command.

    A command with keys also reads a YAML file that `--config` names, and `--set key=value`; `--set` and flags win over
    the file, and with `--resume RUN` all settings are those of that run.

    Args:
        kind: the command's settings.
        arguments: what follows the program's name; None for those of this process.
        description: shown by `--help`.
        positional: flags that words before the first flag stand for, one each, the rest for the last.

    Returns:
        The checked settings.  A wrong flag, key or value ends the program with a message, as argparse does.
    """
    parser = _parser(kind, description)
    words = with_flags(sys.argv[1:] if arguments is None else arguments, positional)
    found, unknown = parser.parse_known_args(words)
    given = vars(found)
    try:
        if unknown:
            advice = _suggest(unknown[0].strip("-"), kind)
            raise InputError(f"unknown flags {unknown}, expected those listed by --help; {advice}")
        if not any(map(is_key, _fields(kind))):
            return kind(**given)
        if given.get("resume") is not None:
            others = [f"--{name.replace('_', '-')}" for name in given if name != "resume"]
            if others:
                raise InputError(
                    f"resume takes every setting from the run's config.json, but {others} came too, expected --resume"
                    " alone; drop them, or start a new run"
                )
            return from_run(kind, Path(given["resume"]))
        config, pairs = given.pop("config", None), given.pop("set", [])
        settings = {} if config is None else read_yaml(Path(config), kind)
        return kind(**{**settings, **_pairs(pairs, kind), **given})
    except (InputError, OSError) as error:
        parser.error(str(error))


def with_flags(arguments: Sequence[str], positional: Sequence[str]) -> list[str]:
    """Return the arguments with a flag before each of the words that come first."""
    words = list(takewhile(lambda word: not word.startswith("-"), arguments)) if positional else []
    single, last = words[: len(positional) - 1], words[len(positional) - 1 :]
    flags = [text for name, word in zip(positional, single, strict=False) for text in (f"--{name}", word)]
    return [*flags, *([f"--{positional[-1]}", *last] if last else []), *arguments[len(words) :]]


def _fields(kind: Any) -> tuple[Field[Any], ...]:
    return fields(kind)


def _parser(kind: type, description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a command; it gives what stands on the line alone, without defaults."""
    keys = [entry for entry in _fields(kind) if is_key(entry)]
    parser = argparse.ArgumentParser(
        description=description,
        epilog="\n".join(["keys of a recipe file and of --set:", *(f"  {e.name}: {e.metadata['help']}" for e in keys)])
        if keys
        else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for entry in _fields(kind):
        if not is_key(entry):
            names = dict.fromkeys([f"--{entry.name}", f"--{entry.name.replace('_', '-')}"])
            parser.add_argument(*names, help=entry.metadata["help"].replace("%", "%%"), **_reading(entry.type))
    if keys:
        parser.add_argument("--config", help="YAML file of settings, keys as flags and below. Default: none.")
        parser.add_argument("--set", nargs="+", metavar="KEY=VALUE", help="Keys of a recipe. Default: none.")
    return parser


def _reading(expected: Any) -> dict[str, Any]:
    """Return how argparse reads a value of that type."""
    (kind,) = {each for each in _parts(expected) if each is not NoneType}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if get_origin(kind) is list:
        return {"nargs": "+", "type": get_args(kind)[0]}
    return {"nargs": "?", "const": True, "type": _truth} if kind is bool else {"type": kind}


def _parts(expected: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the type itself."""
    return get_args(expected) if get_origin(expected) is UnionType else (expected,)


def _truth(text: str) -> bool:
    if text.lower() in ("true", "yes", "1"):
        return True
    if text.lower() in ("false", "no", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def from_run(kind: type[Settings], run: Path) -> Settings:
    """Return the settings of an earlier run, set to resume it.

    Args:
        kind: the script's settings.
        run: run folder.

    Raises:
        ValueError: if it is no run folder, of another script, or of another version.
    """
    config = read_config(run)
    if config["script"] != kind.__name__:
        raise InputError(
            f"run folder {run} was written with {config['script']}, expected {kind.__name__}; resume it with the script"
            " that began it"
        )
    if not isinstance(config["arguments"], dict):
        raise InputError(f"arguments in {run / 'config.json'} is no mapping, expected the settings of a run")
    known = {entry.name for entry in _fields(kind)}
    unknown = sorted(set(config["arguments"]) - known)
    if unknown:
        raise InputError(
            f"run folder {run} has the settings {unknown}, which this version lacks; use the one that began it"
        )
    settings = _checked(config["arguments"], kind, str(run / "config.json"))
    return kind(**{**settings, "resume": str(run), "output": str(run), "overwrite": False})


def read_yaml(path: Path, kind: type) -> dict[str, Any]:
    """Return the settings in a YAML file.

    Args:
        path: of the file.
        kind: whose fields the keys must be.

    Raises:
        ValueError: if it is no mapping, or has keys that are no settings, or values of another type.
        OSError: if it cannot be read.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
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

    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set has {pair!r}, expected key=value, for example label_smoothing=0.1")
        if key not in {entry.name for entry in _fields(kind) if is_key(entry)}:
            raise InputError(f"--set has {key!r}, expected a key of --help's list; {_suggest(key, kind)}")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(
                f"--set has {pair!r}, which cannot be read as YAML ({_one_line(error)}), expected key=value, such as"
                " label_smoothing=0.1"
            ) from error
    return _checked(settings, kind, "--set")


def _checked(content: Mapping[str, Any], kind: type, where: str) -> dict[str, Any]:
    known = {entry.name: entry for entry in _fields(kind)}
    settings = {}
    for key, value in content.items():
        if key not in known:
            raise InputError(
                f"unknown key {key!r} in {where}, expected flags or recipe keys; {_suggest(str(key), kind)}"
            )
        settings[key] = _as_type(key, value, known[key].type, where)
    return settings


def _as_type(key: str, value: Any, expected: Any, where: str) -> Any:
    """Return `value` if it suits the field, numbers as the field's kind; YAML reads 5e-4 as text."""
    if key == "model_kwargs" and isinstance(value, dict):
        return [f"{name}={entry!r}" for name, entry in value.items()]
    kinds = {get_origin(each) if get_origin(each) in (list, dict) else each for each in _parts(expected)}
    if value is None and NoneType in kinds:
        return None
    if bool in kinds or isinstance(value, bool):
        # `no` is no text in YAML, but what users write for mixed_precision.
        fine = bool in kinds and isinstance(value, bool)
        if key == "mixed_precision" and value is False:
            return "no"
    elif int in kinds:
        fine = isinstance(value, int)
    elif float in kinds:
        try:
            value, fine = float(value), True
        except (TypeError, ValueError):
            fine = False
    elif list in kinds or dict in kinds:
        fine = type(value) in kinds
    else:
        fine = isinstance(value, (str, int, float))
        value = str(value) if get_origin(expected) is not Literal else value
    if not fine:
        raise InputError(
            f"{key} in {where} is {value!r}, expected {getattr(expected, '__name__', expected)}; see --help"
        )
    return value


def _suggest(name: str, kind: type) -> str:
    names = [entry.name for entry in _fields(kind)]
    given = name.split("=")[0].replace("-", "_").lower()
    initials = ["".join(word[0] for word in given.split("_") if word)]  # learning_rate: lr
    short = [name for name in names if name == ABBREVIATED.get(given) or name in initials]
    close = short or difflib.get_close_matches(given, names, 1)
    return f"did you mean {close[0]}?" if close else "check the spelling"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def resolved(args: Any) -> dict[str, Any]:
    """Return the settings as config.json stores them, without those that say only how this run was started."""
    return {key: value for key, value in asdict(args).items() if key not in ("resume", "overwrite", "output")}


def command_line(script: str, kind: type, arguments: Mapping[str, Any]) -> str:
    """Return the command that gives a run's settings, without those that are defaults.

    Args:
        script: its path.
        kind: the script's settings.
        arguments: of a run's config.json.
    """
    flags, keys = [], []
    for entry in _fields(kind):
        if entry.name not in arguments:
            continue
        value = arguments[entry.name]
        default = entry.default if entry.default_factory is MISSING else entry.default_factory()
        if value == default:
            continue
        if is_key(entry):
            keys.append(f"{entry.name}={json.dumps(value)}")
        else:
            words = [] if value is True else value if isinstance(value, list) else [str(value)]
            flags += [f"--{entry.name.replace('_', '-')}", *words]
    return shlex.join(["python", script, *flags, *(["--set", *keys] if keys else [])])
