"""Runs of the trainer on the device: in every precision, and bit for bit after an interruption."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from cosify.training import TrainArguments, read_metrics, train
from tests.gpu import resume_worker
from tests.gpu.device import CUDA, DEVICE, on_gpu
from tests.gpu.resume_worker import ARGUMENTS, STOP_AT

pytestmark = on_gpu
only_on_gpu = pytest.mark.skipif(not CUDA, reason="fp16 is of CUDA alone; tests/training has the others on a CPU")


@pytest.fixture(autouse=True)
def _one_precision_a_process() -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"mixed_precision": "no"},
        pytest.param({"mixed_precision": "bf16"}, marks=only_on_gpu),
        pytest.param({"mixed_precision": "fp16", "lr": 0.02}, marks=only_on_gpu),
        pytest.param({"mixed_precision": "bf16", "cosine_margin": 0.2}, marks=only_on_gpu),
    ],
    ids=["no", "bf16", "fp16", "margin"],
)
def test_a_run_lowers_the_loss_and_ends(settings: dict[str, Any], tmp_path: Path) -> None:
    result = train(TrainArguments(**{**ARGUMENTS, **settings}, output=str(tmp_path / "run")))
    parameter = next(result.model.parameters())
    assert (parameter.device.type, parameter.dtype) == (DEVICE.type, torch.float32)
    assert result.data.pipeline == "device"
    records = read_metrics(tmp_path / "run")
    assert [record["step"] for record in records] == [10, 20]
    assert all(math.isfinite(record["train_loss"]) for record in records)
    assert records[1]["train_loss"] < records[0]["train_loss"]
    assert math.isfinite(result.evaluation.loss)
    assert sum(records[-1]["kappa_histogram"]) == 320
    assert result.kappa is not None
    assert 1 < result.kappa.mean < 60
    saved = torch.load(tmp_path / "run" / "checkpoints" / "step-000000020" / "optimizer.bin", weights_only=True)
    fused = CUDA and settings["mixed_precision"] != "fp16"
    assert all(group["fused"] is (True if fused else None) for group in saved["param_groups"])


def test_an_interrupted_run_ends_bit_equal(tmp_path: Path) -> None:
    if CUDA:  # a fresh interpreter: cuBLAS reads its variable when CUDA starts
        done = subprocess.run(
            [sys.executable, "-m", "tests.gpu.resume_worker", str(tmp_path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    else:
        resume_worker.main(tmp_path)
    whole, part = (
        torch.load(tmp_path / f"{name}.pt", map_location="cpu", weights_only=True) for name in ("whole", "part")
    )
    assert whole["device"] == part["device"] == DEVICE.type
    assert whole["records"] == part["records"]
    assert len(whole["records"]) == 2
    torch.testing.assert_close(part["state"], whole["state"], rtol=0, atol=0)
    assert (tmp_path / "stopped").read_text() == str(STOP_AT)
