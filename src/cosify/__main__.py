"""`cosify COMMAND`, and `python -m cosify COMMAND`."""

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

from cosify.console import Command, one_line_errors

COMMANDS = (
    *("train", "finetune", "adapt", "probe", "scan", "evaluate", "verify", "publish", "card", "backbones"),
    *("convert-bin", "convert-rec"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the first argument names, with the rest of the arguments.

    Raises:
        SystemExit: if it is unknown, or ends with an error.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "--help-all", "help"):
        with one_line_errors():
            sys.stdout.write(overview())
    elif arguments[0] == "--version":
        import cosify

        sys.stdout.write(f"cosify {cosify.__version__}\n")
    elif arguments[0] in COMMANDS:
        command(arguments[0]).run(arguments[1:], f"cosify {arguments[0]}")
    else:
        close = difflib.get_close_matches(arguments[0], COMMANDS, 1)
        advice = f"did you mean {close[0]}?" if close else "see cosify --help"
        sys.exit(f"error: unknown command {arguments[0]!r}, expected one of {', '.join(COMMANDS)}; {advice}")


def command(name: str) -> Command:
    """Return the command of that name."""
    found: Command = import_module(f"cosify.commands.{name.replace('-', '_')}").COMMAND
    return found


def overview() -> str:
    """Return what `cosify --help` says."""
    lines = [f" {name:12}{command(name).text.strip().splitlines()[0]}" for name in COMMANDS]
    return "\n".join(
        [
            "usage: cosify COMMAND [WORDS] [FLAGS]",
            "",
            "Image classifiers with a cosine-softmax head whose temperature estimates itself.",
            "",
            *lines,
            "",
            "cosify COMMAND --help shows its flags.  DATA is a folder, parquet files or a hub",
            "id; MODEL is a run, a folder, a published backbone, a timm name or a hub id.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
