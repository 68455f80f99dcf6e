"""The other processes wait for what the main one does alone."""

from pathlib import Path

import pytest

from tests.processes import run_distributed


@pytest.mark.slow
@pytest.mark.parametrize("command", ["probe", "evaluate"])
def test_they_wait_for_longer_than_torch_would(command: str, tmp_path: Path) -> None:
    run_distributed("tests.commands.waiting_worker", tmp_path / "result", 2, command)
    assert (tmp_path / "result" / {"probe": "metrics.jsonl", "evaluate": "report.html"}[command]).is_file()
