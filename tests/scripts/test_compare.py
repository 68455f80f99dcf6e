"""scripts/compare.py: runs side by side end as those one after the other, and 2kappa waits for LS."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from scripts import compare


def test_twice_kappa_waits_for_ls_and_no_run_is_lost() -> None:
    runs = [(head, seed) for seed in (0, 1) for head in ("2kappa", "softmax", "ls")]
    first, last = compare.by_need(runs)
    assert last == [("2kappa", 0), ("2kappa", 1)]
    assert sorted(first + last) == sorted(runs)


def test_what_fails_fails_last(monkeypatch: pytest.MonkeyPatch) -> None:
    def train_one(number: int) -> dict[str, Any]:
        return {"number": 1 // number}

    monkeypatch.setattr(compare, "train_one", train_one)
    monkeypatch.setattr(compare, "ProcessPoolExecutor", lambda *args, **settings: ThreadPoolExecutor(1))
    runs = compare.trained([(0,), (1,), (2,)], compare.CompareArguments(at_once=2))
    assert sorted(run["number"] for run in (next(runs), next(runs))) == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(runs)


@pytest.mark.slow
def test_side_by_side(tmp_path: Path) -> None:
    def runs(name: str, *flags: str) -> dict[str, Any]:
        command = [sys.executable, "scripts/compare.py", "--smoke", "--output", str(tmp_path / name), *flags]
        subprocess.run(command, check=True, cwd=Path(compare.__file__).parents[1], capture_output=True)
        lines = (tmp_path / name / "runs.jsonl").read_text(encoding="utf-8").splitlines()
        found = {run.pop("head"): run for run in map(json.loads, lines)}
        for run in found.values():
            del run["seconds"]
        return found

    one, several = runs("one"), runs("several", "--at-once", "2")
    assert several == one
    assert sorted(one) == ["2kappa", "ls", "softmax"]
