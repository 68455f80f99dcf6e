"""What a command prints: log lines, tables, markdown."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cosify.log_level import set_log_level

if TYPE_CHECKING:
    from rich.table import Table


def set_up_logging() -> None:
    """Print log lines: all of cosify's on the main process, warnings of other packages."""
    from rich import get_console
    from rich.logging import RichHandler

    console = get_console()
    # On a terminal, rich keeps lines apart from the progress bar.  Elsewhere it would break them at 80 columns.
    handler: logging.Handler = logging.StreamHandler()
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_level=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    set_log_level()


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
    """Return the table that ends a command: names and values."""
    from rich.table import Table
    from rich.text import Text

    # As Text, since rich takes [b] and :a: in a str, such as a path, for markup.
    table = Table(show_header=False, title=Text(title, style="table.title"))
    for name, value in rows.items():
        table.add_row(Text(name), Text(str(value)))
    return table
