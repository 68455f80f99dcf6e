"""Settings as they are written down: in config.json, and as the command that gives them again."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from cosify.settings.rules import as_flag, default_of, is_key


def resolved(args: Any) -> dict[str, Any]:
    """Return the settings as config.json stores them, without those that only say how this run was started."""
    return {key: value for key, value in asdict(args).items() if key not in ("resume", "overwrite", "output")}


def command_line(
    program: Sequence[str], kind: Any, arguments: Mapping[str, Any], words: Sequence[str] = ("model", "data")
) -> str:
    """Return the command that gives a run's settings; defaults are left out, but for those that were others once.

    Args:
        program: its first words, such as `cosify train`.
        kind: the command's settings.
        arguments: of a run's config.json.
        words: settings that are written first and without names, in this order, up to the first that is a default.
    """
    first, flags, keys = [], [], []
    changed = {
        entry.name: arguments[entry.name]
        for entry in fields(kind)
        if entry.name in arguments
        and (arguments[entry.name] != default_of(entry) or entry.metadata.get("stated", False))
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
            given = [] if value is True else value if isinstance(value, list) else [value]
            flags += [as_flag(entry.name), *map(str, given)]
    return shlex.join([*program, *first, *flags, *(["--set", *keys] if keys else [])])
