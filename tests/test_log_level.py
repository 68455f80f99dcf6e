"""One process of several tells what a run does."""

import logging
from collections.abc import Iterator

import pytest

from cosify.log_level import set_log_level


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    lines = logging.getLogger("cosify")
    before = lines.level
    yield
    lines.setLevel(before)


@pytest.mark.parametrize(("rank", "level"), [(None, logging.INFO), ("0", logging.INFO), ("3", logging.ERROR)])
def test_the_main_process_alone_tells(rank: str | None, level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if rank is None:
        monkeypatch.delenv("RANK", raising=False)
    else:
        monkeypatch.setenv("RANK", rank)
    set_log_level()
    assert logging.getLogger("cosify.training").getEffectiveLevel() == level
