"""Several processes do what one does, under DDP and FSDP, and under each launcher."""

import functools
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cosify.training import read_metrics, train
from cosify.training.sharding import check_sharding
from tests.processes import ROOT, environment, python, run_distributed
from tests.training import distributed_worker
from tests.training.distributed_worker import ARGUMENTS
from tests.training.records import recorded

OF_ONE_RANK = ("fc.kappa", "fc.embedding_norm")  # running means of the batches that the main process saw
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
# With --cpu, or without --multi_gpu, accelerate 1.15 starts one process, whatever their number is said to be.
ACCELERATE = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]


def two_ranks(folder: Path, *names: str) -> Path:
    """Return `folder` with runs on two processes in it."""
    run_distributed("tests.training.distributed_worker", folder, 2, *names)
    return folder


@pytest.fixture(scope="module")
def done_by_two(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what gives a folder with the run of that name on two processes in it, which is done once."""
    return functools.cache(lambda name: two_ranks(tmp_path_factory.mktemp(name), name))


def held(folder: Path, name: str, rank: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / f"{name}-{rank}.pt")
    return found


@pytest.mark.parametrize(
    ("name", "alone", "augmentation"),
    [
        ("accumulate", "accumulate", "crop"),
        pytest.param("workers", "workers", "timm", marks=pytest.mark.slow),
        pytest.param("sharded", "accumulate", "crop", marks=pytest.mark.slow),
    ],
)
def test_two_ranks_equal_one_with_the_doubled_batch_at_each_step(
    name: str, alone: str, augmentation: str, tmp_path: Path, done_by_two: Callable[[str], Path]
) -> None:
    two, one_process = done_by_two(name), tmp_path / "one"
    one_process.mkdir()
    distributed_worker.run(one_process, alone, world_size=1)
    one, first, second = held(one_process, alone), held(two, name), held(two, name, rank=1)
    assert first["sharded"] == (name == "sharded")
    assert one["augmentation"] == first["augmentation"] == augmentation
    together = first["steps"] + second["steps"]
    assert one["steps"][:, 2].tolist() == together[:, 2].tolist() == [64.0] * 20, "not 20 steps of 64 images"
    assert one["steps"][:, 1].tolist() == together[:, 1].tolist(), "other answers are correct"
    torch.testing.assert_close(together[:, 0] / 64, one["steps"][:, 0] / 64, rtol=0, atol=1e-5)
    one_records, two_records = read_metrics(one_process / alone), read_metrics(two / name)
    assert len(one_records) == len(two_records) == 4
    for epoch, (one_record, two_record) in enumerate(zip(one_records, two_records, strict=True)):
        for key in ("kappa_mean", "train_loss", "mean_angle_deg"):
            assert two_record[key] == pytest.approx(one_record[key], rel=1e-6), (key, epoch)
        for key in ("histogram", "median", "p10", "p90", "low_edge", "high_edge"):
            assert two_record[f"kappa_{key}"] == one_record[f"kappa_{key}"], (key, epoch)
    assert first["evaluation"] == second["evaluation"], "ranks disagree"
    assert first["evaluation"]["accuracy"] == one["evaluation"]["accuracy"]
    for key, value in one["state"].items():
        torch.testing.assert_close(second["state"][key], first["state"][key], rtol=0, atol=0, msg=key)
        if key not in OF_ONE_RANK:
            torch.testing.assert_close(first["state"][key], value, rtol=1e-5, atol=1e-6, msg=key)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "name"), [("ddp", "accumulate"), ("fsdp2", "sharded")])
def test_accelerate_files(file: str, name: str, tmp_path: Path, done_by_two: Callable[[str], Path]) -> None:
    config, by_file = str(ROOT / f"scripts/accelerate/{file}.yaml"), tmp_path / "by-file"
    by_file.mkdir()
    command = ["-m", "accelerate.commands.launch", "--config_file", config, "-m", "tests.training.distributed_worker"]
    done = subprocess.run(
        [python(), *command, str(by_file), name],
        env=environment(PYTHON_EXEC=python()),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Elsewhere than in this test, whose worker shards on the CPU by hand, the same file gives DDP there.
    assert done.stderr.count("FSDP shards the weights on GPUs alone") == (file == "fsdp2"), done.stderr
    plain = done_by_two(name)
    for rank in (0, 1):
        expected, found = held(plain, name, rank), held(by_file, name, rank)
        assert found["sharded"] == (file == "fsdp2")
        assert len(found["steps"]) == 20
        torch.testing.assert_close(found["steps"], expected["steps"], rtol=0, atol=0)
        for key, value in expected["state"].items():
            torch.testing.assert_close(found["state"][key], value, rtol=0, atol=0, msg=key)


def test_deepspeed_is_refused_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")  # by `accelerate launch --use_deepspeed`
    with pytest.raises(ValueError, match=r"told to use DeepSpeed, .* expected DDP or FSDP2; start with .*fsdp2.yaml"):
        train(replace(ARGUMENTS, output=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_fsdp_resumes_to_the_bit(tmp_path: Path) -> None:
    two = two_ranks(tmp_path, "sharded-resumed", "part/sharded-resumed", "part/sharded-resumed")
    whole, rest = held(two, "sharded-resumed"), held(two / "part", "sharded-resumed")
    assert whole["sharded"]
    assert rest["sharded"]
    assert (len(whole["steps"]), len(rest["steps"])) == (20, 20 - 12), "it went on from elsewhere than step 12"
    records = recorded(two / "sharded-resumed")
    assert recorded(two / "part" / "sharded-resumed") == records
    assert rest["evaluation"] == whole["evaluation"]
    assert whole["evaluation"]["accuracy"] == max(record["test_accuracy"] for record in records), "not the best one"
    for key, value in whole["state"].items():
        torch.testing.assert_close(rest["state"][key], value, rtol=0, atol=0, msg=key)
    (newest,) = (path for path in (two / "sharded-resumed" / "checkpoints").iterdir() if path.is_dir())
    assert newest.name == "step-000000020"
    assert (newest / "pytorch_model_fsdp_0").is_dir()


@pytest.mark.slow
def test_fsdp_keeps_the_precision_of_ddp(tmp_path: Path) -> None:
    two = two_ranks(tmp_path, "bf16", "sharded-bf16")
    sharded, plain = held(two, "sharded-bf16"), held(two, "bf16")
    assert sharded["sharded"]
    assert not plain["sharded"]
    torch.testing.assert_close(sharded["steps"], plain["steps"], rtol=1e-6, atol=0)
    for key, value in plain["state"].items():
        torch.testing.assert_close(sharded["state"][key], value, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize(
    ("version", "settings", "message"),
    [
        (1, {}, r"fsdp_version is 1, expected 2; .*--fsdp_version 2"),
        (2, {"ema_decay": 0.9}, r"ema_decay is 0.9 with FSDP, .* drop ema_decay"),
        (2, {"mixed_precision": "fp16"}, r"mixed_precision is 'fp16' with FSDP, expected bf16 or no"),
    ],
)
def test_what_fsdp_cannot_do_is_refused(version: int, settings: dict[str, Any], message: str) -> None:
    accelerator = SimpleNamespace(distributed_type="FSDP", is_fsdp2=version == 2)
    with pytest.raises(ValueError, match=message):
        check_sharding(replace(ARGUMENTS, **settings), accelerator)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["input", "bug", "silent"])
def test_a_process_that_is_alone_with_its_trouble_does_not_leave_the_other_waiting(kind: str, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": "2"}
    # One that stops itself can be ended from outside alone, which takes a real interpreter.
    program = sys.executable if kind == "silent" else python()
    command = [program, "-m", "tests.training.lone_worker", str(tmp_path / "run"), kind]
    first, second = (
        subprocess.Popen(
            command, env=environment(**shared, RANK=rank, LOCAL_RANK=rank), stderr=subprocess.PIPE, text=True
        )
        for rank in ("0", "1")
    )
    try:
        _, printed = first.communicate(timeout=200)
    finally:
        for process in (first, second):
            process.kill()
    _, other = second.communicate()
    assert first.returncode == 1
    assert "error: another process of this run has ended, or has not answered in time" in printed, printed
    assert "Traceback" not in printed
    assert {"input": "error: image in row 7 is broken", "bug": "ZeroDivisionError", "silent": ""}[kind] in other
    assert ("Traceback" in other) == (kind == "bug")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "launcher"),
    [("finetune", ACCELERATE), ("adapt", [*TORCHRUN, "-m", "cosify"])],
    ids=["accelerate", "torchrun"],
)
def test_scripts_run_under_each_launcher(script: str, launcher: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    path = script if "cosify" in launcher else str(ROOT / "scripts" / f"{script}.py")
    command = (*launcher, path, "--smoke", "--tracker", "none", "--output", str(run))
    done = subprocess.run(
        [python(), *command],
        env=environment(PYTHON_EXEC=python()),  # what the launchers start their processes with
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1, done.stdout
    assert done.stderr.count("epoch 1/10") == 1, "both processes print"
    assert json.loads((run / "environment.json").read_text())["world_size"] == 2
    assert [record["epoch"] for record in read_metrics(run)] == list(range(1, 11))
    assert (run / "export" / "model.safetensors").is_file()


def stop_after_an_epoch(command: list[str], run: Path, number: signal.Signals) -> str:
    """Start a run, or its rest, send it a signal after one more epoch, and return what it printed."""

    def epochs() -> int:
        return len(read_metrics(run)) if (run / "metrics.jsonl").exists() else 0

    before, deadline = epochs(), time.monotonic() + 120
    with subprocess.Popen(
        [python(), *command], env=environment(PYTHON_EXEC=python()), stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            while epochs() == before and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(number)
            _, printed = process.communicate(timeout=60)
        finally:
            process.kill()
    assert f"stopped by signal {int(number)} at step " in printed, printed
    return printed


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["device", "workers"])  # torchrun's signal reaches the workers, too
def test_sigterm_to_torchrun_saves_and_one_process_goes_on(pipeline: str, tmp_path: Path) -> None:
    run, script = tmp_path / "run", str(ROOT / "scripts" / "train.py")
    settings = ["--data", "synthetic", "--epochs", "3000", "--batch-size", "32", "--tracker", "none"]
    settings += ["--set", f"pipeline={pipeline}", "num_workers=1", "--output", str(run)]
    stop_after_an_epoch([*TORCHRUN, script, *settings], run, signal.SIGTERM)
    (saved,) = (path for path in (run / "checkpoints").iterdir() if path.is_dir())
    step = json.loads((saved / "progress.json").read_text())["step"]
    assert step % 10 == 0, "ranks agree at every tenth step alone"
    assert step == int(saved.name.removeprefix("step-")) > 0
    printed = stop_after_an_epoch([script, "--resume", str(run)], run, signal.SIGTERM)
    assert f"resumed at step {step} of 15000" in printed
    (later,) = (path for path in (run / "checkpoints").iterdir() if path.is_dir())
    assert int(later.name.removeprefix("step-")) > step
    epochs = [record["epoch"] for record in read_metrics(run)]
    assert epochs == list(range(1, len(epochs) + 1))
