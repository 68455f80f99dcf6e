"""Results read back from JSON into the dataclasses that they were written from."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from cosify.errors import InputError

Kind = TypeVar("Kind")


def from_json(kind: type[Kind], value: Any) -> Kind:
    """Return the dataclass that `dataclasses.asdict` and JSON made `value` of.

    Args:
        kind: its class, whose fields are numbers, text, None, dataclasses, and tuples and mappings of these.
        value: as `json.loads` returns it.

    Raises:
        ValueError: if a field without a default is missing, or one is unknown or of another kind; the message names it.
    """
    return cast(Kind, _read(kind, value, kind.__name__))


def _read(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        names = {entry.name for entry in fields(kind)}
        needed = {entry.name for entry in fields(kind) if entry.default is MISSING}  # earlier versions lack the others
        if not isinstance(value, Mapping) or not needed <= set(value) <= names:
            found = set(value) if isinstance(value, Mapping) else set()
            other = sorted(needed - found | found - names) if isinstance(value, Mapping) else type(value).__name__
            raise InputError(f"{where} differs in {other} from what this version of cosify writes; evaluate again")
        hints = get_type_hints(kind)
        return cast(Any, kind)(**{name: _read(hints[name], value[name], f"{where}.{name}") for name in value})
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        options = [option for option in arguments if option is not type(None)]
        return _read(options[0], value, where) if len(options) == 1 else value
    if origin is tuple:
        inner = arguments[0] if arguments[-1] is ... else None
        kinds = [inner] * len(value) if inner is not None else list(arguments)
        return tuple(
            _read(each, item, f"{where}[{n}]") for n, (each, item) in enumerate(zip(kinds, value, strict=True))
        )
    if isinstance(origin, type) and issubclass(origin, Mapping):
        # JSON has text alone for keys, such as "0.01".
        return {arguments[0](name): _read(arguments[1], item, f"{where}[{name!r}]") for name, item in value.items()}
    if origin is Literal:
        wrong = value not in arguments
    else:
        wrong = not isinstance(value, (int, float) if kind is float else kind) or (kind is int and value is True)
    if wrong:
        raise InputError(f"{where} is {value!r}, expected {kind}; evaluate again")
    return value
