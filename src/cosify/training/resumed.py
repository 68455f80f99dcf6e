"""A run that goes on has the settings that it was started with."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from cosify.errors import InputError
from cosify.settings import as_types, default_of, resolved
from cosify.settings.training import RunArguments
from cosify.training.run_folder import read_config
from cosify.training.session import smoke_settings

Arguments = TypeVar("Arguments", bound=RunArguments)


def as_begun(args: Arguments) -> Arguments:
    """Return the settings of a run: of a new one those given, of one that goes on those in its config.json.

    Args:
        args: the settings.  With `resume`, each is a default or what it was, but that the data may lie in another
            place, and that the batch size of a process follows from the number of processes.

    Raises:
        ValueError: if others came, or `resume` is no run folder, or one of another command or another version.
    """
    if args.resume is None:
        return smoke_settings(args)  # type: ignore[no-any-return]
    usual = {entry.name: default_of(entry) for entry in fields(args)}
    begun = {**usual, **_arguments_of(args.resume, type(args))}
    ours = as_types(json.loads(json.dumps(resolved(args))), type(args), "the settings")  # tuples are lists there
    free = ("data", "batch_size")
    others = [name for name, value in ours.items() if name not in free and value not in (usual[name], begun[name])]
    if others:
        name = others[0]
        raise InputError(
            f"{name} is {ours[name]!r}, but run {args.resume} was started with {begun[name]!r}, expected settings as"
            f" they were, or resume alone; drop {', '.join(others)}, or start a new run"
        )
    moved = ["data"] if ours["data"] != usual["data"] else []
    return replace(args, **{name: begun[name] for name in ours if name not in moved})


def _arguments_of(run: str, kind: Any) -> dict[str, Any]:
    """Return the settings in a run's config.json, as the types of the command's."""
    config = read_config(run)
    if config["script"] != kind.__name__:
        raise InputError(
            f"run folder {run} was written with {config['script']}, expected {kind.__name__}; resume it with the"
            " command that began it"
        )
    found = config["arguments"]
    if not isinstance(found, dict):
        raise InputError(f"arguments in {Path(run) / 'config.json'} is no mapping, expected the settings of a run")
    unknown = sorted(set(found) - {entry.name for entry in fields(kind)})
    if unknown:
        raise InputError(
            f"run folder {run} has the settings {unknown}, which this version lacks; use the one that began it"
        )
    return as_types(found, kind, str(Path(run) / "config.json"))
