"""Where these tests run, and how near float32 comes to float64.

python -m pytest -m gpu tests/gpu                       # on a CUDA device
GPU_TEST_DEVICE=cpu python -m pytest -m gpu tests/gpu   # what a CPU can do of it, to debug the tests
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from cosify.heads import CosineLinear

DEVICE = torch.device(os.environ.get("GPU_TEST_DEVICE", "cuda"))
CUDA = DEVICE.type == "cuda"

on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        CUDA and not torch.cuda.is_available(),
        reason="needs a CUDA device; GPU_TEST_DEVICE=cpu runs what a CPU can do of it",
    ),
    # torch 2.11 says so whenever the precision of products is set or read as it was before 2.9, also by inductor.
    pytest.mark.filterwarnings("ignore:Please use the new API settings:UserWarning"),
]


def needs_cuda(what: str) -> pytest.MarkDecorator:
    """Return the mark of a test of something that a CPU does not have."""
    return pytest.mark.skipif(not CUDA, reason=f"a CPU has no {what}")


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Compute float32 products in TF32 inside, for "high"."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def head_of(weight: Tensor, kappa: float | str) -> CosineLinear:
    """Return a head on the device with these prototypes."""
    head = CosineLinear(weight.shape[1], len(weight), kappa=kappa, device=DEVICE)
    with torch.no_grad():
        head.weight.copy_(weight)
    return head


def distance(value: Tensor | None, expected: Tensor | None) -> float:
    """Return the relative distance of two tensors, computed in float64 on the CPU."""
    assert value is not None
    assert expected is not None
    value, expected = value.detach().cpu().double(), expected.detach().cpu().double()
    return float((value - expected).norm() / expected.norm())
