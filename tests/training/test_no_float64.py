"""On a device without float64 everything trains and measures as on the CPU, and no float64 tensor is made there."""

from pathlib import Path

import pytest
import torch

from cosify.functional.float64 import float64_device, has_float64, in_float64, sum_dtype
from tests.processes import run_python


@pytest.mark.slow  # in a process of its own: the stand-in stays registered with torch
def test_every_policy_trains_and_is_evaluated_without_float64(tmp_path: Path) -> None:
    run_python("-m", "tests.training.no_float64_worker", str(tmp_path))


def test_where_float64_is_computed() -> None:
    cpu, mps, cuda = (torch.device(name) for name in ("cpu", "mps", "cuda"))
    assert [has_float64(device) for device in (cpu, mps, cuda)] == [True, False, True]
    assert [float64_device(device) for device in (cpu, mps, cuda)] == [cpu, cpu, cuda]
    assert [sum_dtype(device) for device in (cpu, mps, cuda)] == [torch.float64, torch.float32, torch.float64]
    assert in_float64(torch.ones(1)).dtype == torch.float64
