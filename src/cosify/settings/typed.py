"""Values of files as the types of settings."""

from types import NoneType
from typing import Any, Literal, get_args, get_origin

from cosify.errors import InputError
from cosify.settings.rules import types_of


def as_type(key: str, value: Any, expected: Any, where: str) -> Any:
    """Return a value of YAML or JSON as the type of its field: YAML reads 5e-4 as text.

    Args:
        key: name of the field.
        value: what was read.
        expected: annotation of the field.
        where: the file, for the message.

    Raises:
        ValueError: if it is of another type.
    """
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
            value = [as_type(f"an entry of {key}", entry, get_args(expected)[0], where) for entry in value]
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
