"""`cosify train` as users start it, and scripts/train.py under launchers."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.data.folders import image_folder
from tests.processes import ROOT, environment, python, run_python

SCRIPT = str(ROOT / "scripts" / "train.py")


def started(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python(), *command],
        env=environment(PYTHON_EXEC=python()),  # what torchrun starts its processes with
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def check_run(folder: Path) -> None:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == list(range(1, 11))
    assert records[-1]["test_accuracy"] > 0.8
    assert json.loads((folder / "environment.json").read_text())["world_size"] == 1
    names = {path.name for path in folder.iterdir()}
    files = {"config.json", "metrics.jsonl", "environment.json", "kappa_trace.png"}
    assert names == {*files, "checkpoints", "export", "trackers", ".lock"}


@pytest.mark.slow
def test_smoke_and_its_export_in_stock_timm(tmp_path: Path) -> None:
    printed = run_python(SCRIPT, "--smoke", "--batch-size", "64", "--output", str(tmp_path / "run"))
    check_run(tmp_path / "run")
    assert "test accuracy" in printed
    assert "kappa, mean of last epoch" in printed
    reader = (
        "import sys, timm, torch;"
        f"model = timm.create_model('local-dir:{tmp_path / 'run' / 'export'}', pretrained=True).eval();"
        "print(list(model(torch.zeros(1, 1, 32, 32)).shape), 'cosify' in sys.modules)"
    )
    assert run_python("-c", reader, stock=True) == "[1, 10] False\n"
    assert json.loads((tmp_path / "run" / "export" / "config.json").read_text())["label_names"][0] == "pattern 0"


@pytest.mark.slow
def test_accelerate_launches_the_stock_baseline_into_a_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    launcher = ("-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "1", "--cpu")
    done = started(*launcher, SCRIPT, "--smoke", "--batch-size", "64", "--head", "linear")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("-synthetic-resnet10t-softmax")
    check_run(folder)
    assert "cosify" not in json.loads((folder / "export" / "config.json").read_text())


def test_errors_are_one_line_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    done = started("-m", "cosify", "train", "--smoke", "--output", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.strip().startswith(f"error: run folder {tmp_path} holds ['notes.txt'], which no run has written")
    assert "Traceback" not in done.stderr


def test_a_broken_image_ends_the_program(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "data", per_class=8)
    (data / "test" / "cat" / "0.png").write_bytes(b"junk")  # seen by the worker processes alone
    flags = ("--model-kwargs", "width=0.03125", "--batch-size", "8", "--epochs", "1", "--tracker", "none")
    workers = ("--set", "pipeline=workers", "num_workers=2")
    done = started("-m", "cosify", "train", str(data), *flags, *workers, "--output", str(tmp_path / "run"))
    assert done.returncode == 1
    assert "image in row 0 of split 'test'" in done.stderr
