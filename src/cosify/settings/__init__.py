"""Settings of commands: fields of frozen dataclasses, each with a help text and, where its type is too wide, a rule."""

from cosify.settings.record import command_line, resolved
from cosify.settings.rules import (
    ABOVE_0,
    AT_LEAST_1,
    FROM_0,
    SEED,
    SEEDS,
    SHARE,
    Rule,
    as_flag,
    check,
    default_of,
    flag,
    is_key,
    key,
    types_of,
    wrong,
)
from cosify.settings.typed import as_types

__all__ = [
    "ABOVE_0",
    "AT_LEAST_1",
    "FROM_0",
    "SEED",
    "SEEDS",
    "SHARE",
    "Rule",
    "as_flag",
    "as_types",
    "check",
    "command_line",
    "default_of",
    "flag",
    "is_key",
    "key",
    "resolved",
    "types_of",
    "wrong",
]
