"""Settings on their way out: into config.json, and into the command that gives them again."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from cosify.settings.rules import default_of, is_key


def resolved(args: Any) -> dict[str, Any]:
    """Return the settings as config.json stores them, without those that say only how this run was started."""
    return {key: value for key, value in asdict(args).items() if key not in ("resume", "overwrite", "output")}


def command_line(
    program: Sequence[str], kind: Any, arguments: Mapping[str, Any], words: Sequence[str] = ("model", "data")
) -> str:
    """Return the command that gives a run's settings, without those that are defaults.

    Args:
        program: its first words, such as `cosify train`.
        kind: the command's settings.
        arguments: of a run's config.json.
        words: settings that are written first and without their names, in that order, as far as all are there.
    """
    first, flags, keys = [], [], []
    changed = {
        entry.name: arguments[entry.name]
        for entry in fields(kind)
        if entry.name in arguments and arguments[entry.name] != default_of(entry)
    }
    for name in words:
        if name not in changed:
            break
        first.append(str(changed.pop(name)))
    for entry in fields(kind):
        if entry.name not in changed:
            continue
        value = changed[entry.name]
        if is_key(entry):
            keys.append(f"{entry.name}={json.dumps(value)}")
        else:
            given = [] if value is True else value if isinstance(value, list) else [str(value)]
            flags += [f"--{entry.name.replace('_', '-')}", *given]
    return shlex.join([*program, *first, *flags, *(["--set", *keys] if keys else [])])
