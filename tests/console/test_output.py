"""Tables of commands show what users typed as it is."""

import io

import pytest
import rich
from rich.console import Console

from cosify.console import show, two_columns


def test_markup_in_names_and_paths_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(rich, "get_console", lambda: Console(file=shown, width=100))
    rows = {"run folder": "runs/[b]x[/b]", "export": "runs/[/]/a", "[i]name": "a:smile:b", "number": 3}
    show(two_columns("model [/wrong] on [red]", rows))
    for text in ("model [/wrong] on [red]", "3", *(str(each) for pair in rows.items() for each in pair)):
        assert text in shown.getvalue()
