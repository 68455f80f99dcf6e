"""Settings of commands: fields of frozen dataclasses, with a help text and, where the type says too little, a rule."""

from cosify.settings.record import command_line, resolved
from cosify.settings.rules import ABOVE_0, AT_LEAST_1, FROM_0, SHARE, Rule, check, default_of, flag, is_key, key, wrong

__all__ = [
    "ABOVE_0",
    "AT_LEAST_1",
    "FROM_0",
    "SHARE",
    "Rule",
    "check",
    "command_line",
    "default_of",
    "flag",
    "is_key",
    "key",
    "resolved",
    "wrong",
]
