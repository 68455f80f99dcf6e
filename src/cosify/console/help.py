"""The text of `--help`, which fits one screen, and of `--help-all`."""

import textwrap
from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any, Literal, get_args, get_origin

from cosify.settings import as_flag, default_of, is_key, types_of

SCREEN = (80, 24)  # columns and lines of a terminal as it opens
_INDENT = 26
# What stands for a value if its type alone says too little.
_VALUES = {"data": "DATA", "model": "MODEL", "models": "MODEL", "output": "FOLDER", "resume": "RUN", "repo": "ORG/NAME"}


def short_help(program: str, kind: Any, text: str, words: Sequence[str], shown: Sequence[str]) -> str:
    """Return one screen: what the command is for, its first examples, and the flags that are used most.

    Args:
        program: its name.
        kind: dataclass of its settings.
        text: of the command.
        words: settings that are given as words.
        shown: flags to list; empty for all.
    """
    entries = [entry for entry in fields(kind) if not is_key(entry)]
    named = {entry.name: entry for entry in entries}
    listed = [named[name] for name in shown or named]
    lines = [_usage(program, kind, words), "", *_first_paragraph_and_commands(text), ""]
    for entry in listed:
        about, default = entry.metadata["help"].partition(". ")[0].rstrip("."), default_of(entry)
        is_told = default not in (None, "") and default is not False and not isinstance(default, list)  # 0 is told
        told = f" [{default}]" if is_told else ""
        lines.append(f"  {_flag(entry, words):{_INDENT - 3}} {about}{told}")
    hidden = len(entries) - len(listed) + sum(map(is_key, fields(kind)))
    lines.append(f"  {'--help-all':{_INDENT - 2}}" + (f"{hidden} more, and all of this text" if hidden else "All text"))
    return "\n".join(lines) + "\n"


def long_help(program: str, kind: Any, text: str, words: Sequence[str]) -> str:
    """Return the whole text, every flag and every key of a recipe."""
    lines = [_usage(program, kind, words), "", text.strip(), "", "flags:"]
    for entry in fields(kind):
        if not is_key(entry):
            lines += [f"  {_flag(entry, words)}", *_wrapped(entry.metadata["help"])]
    keys = [entry for entry in fields(kind) if is_key(entry)]
    if keys:
        lines += ["  --config FILE", *_wrapped("Recipe: a YAML file with one line 'name: value' for each flag or key.")]
        lines += ["  --set KEY=VALUE ...", *_wrapped("Keys of a recipe; they win over those of --config.")]
        lines += ["", "keys of a recipe, and of --set:"]
        for entry in keys:
            lines += [f"  {entry.name}", *_wrapped(entry.metadata["help"])]
    return "\n".join(lines) + "\n"


def _usage(program: str, kind: Any, words: Sequence[str]) -> str:
    named = {entry.name: entry for entry in fields(kind)}
    return " ".join(["usage:", program, *(f"[{_value(named[name])}]" for name in words), "[FLAGS]"])


def _first_paragraph_and_commands(text: str) -> list[str]:
    paragraphs = text.strip().split("\n\n")
    commands = next((each for each in paragraphs if each.startswith("    ")), "")
    return [*textwrap.wrap(" ".join(paragraphs[0].split()), SCREEN[0]), "", *textwrap.dedent(commands).splitlines()]


def _flag(entry: Field[Any], words: Sequence[str]) -> str:
    value = _value(entry)
    return value if entry.name in words else f"{as_flag(entry.name)} {value}".rstrip()


def _value(entry: Field[Any]) -> str:
    """Return what stands for the value of a flag; nothing for a flag without a value."""
    if entry.name in _VALUES:
        return _VALUES[entry.name] + (" ..." if get_origin(entry.type) is list else "")
    return _name_of(types_of(entry.type)[0])


def _name_of(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if get_origin(kind) is list:
        return f"{_name_of(get_args(kind)[0])} ..."
    return {int: "N", float: "X", str: "TEXT", bool: ""}[kind]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, SCREEN[0], initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)
