"""scripts/compare.py: runs side by side end as those one after the other, and 2kappa waits for LS."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import cosify.training
from cosify.data import Fingerprint, load_splits
from cosify.errors import InputError
from cosify.models.config import RUN_MARK
from cosify.settings import resolved
from cosify.training import TrainArguments
from scripts import compare
from tests.processes import environment, python

ROW = {"accuracy": 0.5, "mean_angle_deg": 60.0, "kappa": None, "kappa_by_epoch": [], "low_edge": None}


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "set_up_worker", lambda threads: None)  # the levels of loggers stay


def test_twice_kappa_waits_for_ls_and_no_run_is_lost() -> None:
    runs = [(head, seed) for seed in (0, 1) for head in ("2kappa", "softmax", "ls")]
    first, last = compare.by_need(runs)
    assert last == [("2kappa", 0), ("2kappa", 1)]
    assert sorted(first + last) == sorted(runs)


def test_heads_in_any_order() -> None:
    assert compare.behind_ls(["2kappa", "20", "ls", "5"]) == ["20", "ls", "2kappa", "5"]
    for heads in (["ls", "2kappa", "20"], ["20", "2kappa"], ["ls", "20"]):
        assert compare.behind_ls(heads) == heads


def test_twice_kappa_without_ls_is_refused_before_any_run(tmp_path: Path) -> None:
    args = compare.CompareArguments(heads=["20", "2kappa"], seeds=[0, 3], output=str(tmp_path / "new"))
    with pytest.raises(InputError, match=r"2kappa needs runs of ls, with the seeds \[0, 3\] too; name ls among"):
        compare.main(args)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("line", ["head: linear", "kappa: 20", "seed: 3"])
def test_a_recipe_sets_nothing_that_each_run_has_its_own_value_of(line: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: synthetic\n{line}\n", encoding="utf-8")
    name = line.partition(":")[0]
    with pytest.raises(InputError, match=rf"recipe.yaml sets \['{name}'\], which follow from --heads and --seeds"):
        compare.main(compare.CompareArguments(config=str(recipe), output=str(tmp_path)))


def test_a_kept_run_goes_on_with_its_own_settings_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(args: TrainArguments) -> None:
        raise KeyboardInterrupt(args.resume)

    monkeypatch.setattr(cosify.training, "train", train)
    args, run = TrainArguments(data="synthetic", epochs=2), tmp_path / "ls-0"
    (run / "checkpoints").mkdir(parents=True)
    noted = {key: value for key, value in resolved(args).items() if key != "wait_minutes"}  # as if it were a new one
    content = {RUN_MARK: 1, "script": "TrainArguments", "arguments": {**noted, "data": "elsewhere"}}
    (run / "config.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(KeyboardInterrupt, match="ls-0"):
        compare.train_one(args, "ls", tmp_path, str(tmp_path))
    with pytest.raises(InputError, match=r"ls-0 was run with other \['epochs', 'lr'\], expected .*another --keep"):
        compare.train_one(replace(args, epochs=1, lr=0.2), "ls", tmp_path, str(tmp_path))


def test_runs_on_other_data_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Fingerprint.of_data("digits", load_splits("digits")).digest()
    rows = [{"head": head, "seed": 0, "high_edge": None, **ROW} for head in ("softmax", "5")]
    runs = tmp_path / "a b" / "runs.jsonl"
    runs.parent.mkdir()
    words = ["--heads", "softmax", "5", "--seeds", "0", "--output", str(runs.parent)]
    monkeypatch.setattr(sys, "argv", ["compare.py", *words])
    args = compare.CompareArguments(heads=["softmax", "5"], seeds=[0], output=str(runs.parent))
    for noted, others in (({}, {}), ({}, {"data": data}), ({"data": data}, {"data": data})):
        runs.write_text("".join(json.dumps(row | more) + "\n" for row, more in zip(rows, (noted, others), strict=True)))
        compare.main(args)
        table = json.loads((runs.parent / "table.json").read_text(encoding="utf-8"))
        assert shlex.split(table["command"]) == ["python", "scripts/compare.py", *words]
    with pytest.raises(InputError, match="holds runs on other data than 'synthetic', expected the same; choose"):
        compare.main(replace(args, data="synthetic"))


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
def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    program = (
        "import os, sys; from concurrent.futures import ProcessPoolExecutor; from multiprocessing import get_context;"
        "from scripts.compare import set_up_worker; spawn = get_context('spawn');"
        "pool = ProcessPoolExecutor(1, spawn, initializer=set_up_worker, initargs=(1,));"
        "print(pool.submit(os.getpid).result(), flush=True); pool.submit(__import__('time').sleep, 600).result()"
    )
    root = Path(compare.__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        worker = int(started.stdout.readline())
        started.kill()
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists():
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker went on")


@pytest.mark.slow
def test_side_by_side(tmp_path: Path) -> None:
    def runs(name: str, *flags: str) -> dict[str, Any]:
        # The pool of workers starts interpreters of its own, which inherit pipes.
        program = sys.executable if flags else python()
        command = [program, "scripts/compare.py", "--smoke", "--output", str(tmp_path / name), *flags]
        root = Path(compare.__file__).parents[1]
        subprocess.run(command, check=True, cwd=root, env=environment(), capture_output=True)
        lines = (tmp_path / name / "runs.jsonl").read_text(encoding="utf-8").splitlines()
        found = {run.pop("head"): run for run in map(json.loads, lines)}
        for run in found.values():
            del run["seconds"]
        return found

    one, several = runs("one"), runs("several", "--at-once", "2")
    assert several == one
    assert sorted(one) == ["2kappa", "ls", "softmax"]
    (data,) = {run["data"] for run in one.values()}
    assert data == Fingerprint.of_data("synthetic", load_splits("synthetic")).digest()
