"""A command: its function, the dataclass of its settings, its help, and the settings that need no flag."""

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosify.console.ending import leave_processes, one_line_errors
from cosify.console.help import long_help, short_help
from cosify.console.parse import parse_arguments
from cosify.extras import require_lab


@dataclass(frozen=True)
class Command:
    """A program.

    Attributes:
        main: does the work; takes an object of `settings`.
        settings: dataclass of flags and keys.
        text: of the help: one line, example commands (the first indented block), and the rest, for `--help-all` alone.
        words: settings that are given as words, without a flag.  A list takes all words but one for each setting after
            it.
        shown: flags that `--help` lists; empty for all.
        needed: settings that must be given, except with `--smoke`.
        needs_lab: whether it needs the packages of `cosify[lab]`.
    """

    main: Callable[[Any], None]
    settings: type
    text: str
    words: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    needs_lab: bool = True

    def run(self, arguments: Sequence[str] | None = None, program: str | None = None) -> None:
        """Run the command.  If it fails, the process ends with a one-line message and an exit code.

        Args:
            arguments: what follows the program's name; None for those of this process.
            program: its name; None for that of this process.
        """
        arguments = sys.argv[1:] if arguments is None else arguments
        program = Path(sys.argv[0]).name if program is None else program
        with one_line_errors():
            if "-h" in arguments or "--help" in arguments:
                sys.stdout.write(short_help(program, self.settings, self.text, self.words, self.shown))
            elif "--help-all" in arguments:
                sys.stdout.write(long_help(program, self.settings, self.text, self.words))
            else:
                if self.needs_lab:
                    require_lab()
                self.main(parse_arguments(self.settings, arguments, program, self.words, self.needed))
                leave_processes()


def typed(name: str) -> str:
    """Return the command that started this process as `cosify NAME ...`, even if a script was called."""
    words = sys.argv[1:]
    return shlex.join(["cosify", name, *(words[1:] if words[:1] == [name] else words)])
