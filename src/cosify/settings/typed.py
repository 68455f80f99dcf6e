"""Values of files as the types of settings."""

from collections.abc import Mapping
from dataclasses import fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from cosify.errors import InputError
from cosify.settings.rules import types_of


def as_types(values: Mapping[str, Any], kind: Any, where: str) -> dict[str, Any]:
    """Return values of YAML or JSON as the types of their fields: YAML reads 5e-4 as text.

    Args:
        values: what was read, by field.
        kind: the settings, a dataclass that has these fields.
        where: the file, for the message.

    Raises:
        ValueError: if one is of another type.
    """
    types = {entry.name: entry.type for entry in fields(kind)}
    return {name: _as_type(name, value, types[name], where) for name, value in values.items()}


def _as_type(key: str, value: Any, expected: Any, where: str) -> Any:
    if key == "model_kwargs" and isinstance(value, dict):
        return [f"{name}={entry!r}" for name, entry in value.items()]
    kinds = {get_origin(each) if get_origin(each) in (list, dict) else each for each in types_of(expected)}
    if value is None and NoneType in kinds:
        return None
    if bool in kinds or isinstance(value, bool):
        # Users write `no` for mixed_precision, which YAML reads as False.
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
    elif list in kinds:
        fine = isinstance(value, list)
        if fine:
            value = [_as_type(f"an entry of {key}", entry, get_args(expected)[0], where) for entry in value]
    elif dict in kinds:
        fine = isinstance(value, dict)
    else:
        fine = isinstance(value, (str, int, float))
        value = str(value) if fine and get_origin(expected) is not Literal else value
    if not fine:
        choices = f"one of {', '.join(map(str, get_args(expected)))}" if get_origin(expected) is Literal else None
        raise InputError(
            f"{key} in {where} is {value!r}, expected {choices or getattr(expected, '__name__', expected)};"
            f" {'put text in quotes, or ' if isinstance(value, bool) and str in kinds else ''}see --help-all"
        )
    return value
