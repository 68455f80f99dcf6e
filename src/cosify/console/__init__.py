"""What all commands share: words and flags, help, one-line errors, logging, tables."""

from cosify.console.command import Command, typed
from cosify.console.ending import leave_processes, one_line_errors
from cosify.console.output import set_up_logging, show, show_markdown, two_columns
from cosify.console.parse import parse_arguments

__all__ = [
    "Command",
    "leave_processes",
    "one_line_errors",
    "parse_arguments",
    "set_up_logging",
    "show",
    "show_markdown",
    "two_columns",
    "typed",
]
