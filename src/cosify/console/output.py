"""What a command prints: lines of logging, tables, markdown."""

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def set_up_logging() -> None:
    """Log cosify's lines on the main process, warnings of everything else."""
    from rich import get_console
    from rich.logging import RichHandler

    console = get_console()
    # Off a terminal rich would break lines at 80 columns; on one, it keeps them apart from the progress bar.
    handler: logging.Handler = logging.StreamHandler()
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_level=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    is_main = os.environ.get("RANK", "0") == "0"
    logging.getLogger("cosify").setLevel(logging.INFO if is_main else logging.ERROR)


def show(table: "Table") -> None:
    """Print a table."""
    from rich import get_console

    get_console().print(table)


def show_markdown(text: str) -> None:
    """Print markdown, rendered."""
    from rich import get_console
    from rich.markdown import Markdown

    get_console().print(Markdown(text))


def two_columns(title: str, rows: Mapping[str, Any]) -> "Table":
    """Return the table that ends a command: what was found, and where it lies."""
    from rich.table import Table

    table = Table(show_header=False, title=title)
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table
