"""Fields and their rules.  A flag is given on the command line, a key in a recipe or after `--set`."""

import math
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from cosify.errors import InputError


@dataclass(frozen=True)
class Rule:
    """What a value must be, as a test and in words."""

    holds: Callable[[Any], bool]
    expected: str


AT_LEAST_1 = Rule(lambda value: value >= 1, "at least 1")
FROM_0 = Rule(lambda value: 0 <= value < math.inf, "a number from 0 on, below infinity")
ABOVE_0 = Rule(lambda value: 0 < value < math.inf, "a number above 0 and below infinity")
SEED = Rule(lambda value: 0 <= value < 2**32, "a whole number from 0 to 4294967295")  # what numpy takes
SEEDS = Rule(lambda values: all(map(SEED.holds, values)), "whole numbers from 0 to 4294967295")
SHARE = Rule(lambda value: 0 <= value <= 1, "a share in [0, 1]")


def flag(default: Any, help_text: str, rule: Rule | None = None) -> Any:
    """Return a field of a dataclass that is a flag."""
    return _setting(default, {"help": help_text}, rule)


def key(default: Any, help_text: str, rule: Rule | None = None, *, stated: bool = False) -> Any:
    """Return a field of a dataclass that is a key of a recipe.

    Args:
        default: its value where none is given.
        help_text: what it is, and why this default.
        rule: what values may be.
        stated: write it into every command, because its default was another one and commands are of older code, too.
    """
    return _setting(default, {"help": help_text, "key": True, "stated": stated}, rule)


def _setting(default: Any, metadata: dict[str, Any], rule: Rule | None) -> Any:
    if rule is not None:
        metadata["rule"] = rule
    if isinstance(default, (list, dict)):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def is_key(entry: Field[Any]) -> bool:
    """Return whether a field is a key of a recipe, without a flag."""
    return bool(entry.metadata.get("key", False))


def default_of(entry: Field[Any]) -> Any:
    """Return the default of a field."""
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def types_of(expected: Any) -> tuple[Any, ...]:
    """Return the types in a union, or the type itself."""
    return get_args(expected) if get_origin(expected) is UnionType else (expected,)


def as_flag(name: str) -> str:
    """Return a setting's name as it is typed on the command line."""
    return f"--{name.replace('_', '-')}"


def check(settings: Any) -> None:
    """Raise a ValueError for a value that breaks its rule or is none of its choices.

    None is fine where it is the default.  argparse checks the choices of flags, but sees neither a YAML file nor
    arguments from Python.
    """
    for entry in fields(settings):
        rule, value, optional = entry.metadata.get("rule"), getattr(settings, entry.name), entry.default is None
        if get_origin(entry.type) is Literal and value not in get_args(entry.type):
            raise wrong(settings, entry.name, f"one of {get_args(entry.type)}")
        if rule is not None and not (optional and value is None) and not rule.holds(value):
            raise wrong(settings, entry.name, f"{rule.expected}, or nothing" if optional else rule.expected)


def wrong(settings: Any, name: str, expected: str) -> InputError:
    """Return the error for a value that does not fit."""
    (entry,) = (each for each in fields(settings) if each.name == name)
    where = f"{name} in the recipe" if is_key(entry) else as_flag(name)
    return InputError(f"{name} is {getattr(settings, name)!r}, expected {expected}; change {where}")
