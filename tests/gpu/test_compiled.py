"""Compiled, a head gives the loss, gradients and kappa that it gives eagerly; with CUDA graphs behind it too."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cosify  # noqa: F401  # installs head="cos"
from cosify.heads import CosineLinear
from tests import geometry
from tests.gpu.device import CUDA, DEVICE, distance, head_of, needs_cuda, on_gpu

pytestmark = [
    *on_gpu,
    # inductor advises TF32, and tells how it splits reductions; it and triton use deprecated parts of Python.
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]
BACKEND: dict[str, Any] = {} if CUDA else {"backend": "eager"}  # C++ kernels take a minute
NUM_STEPS = 4  # CUDA graphs run the first, record the second and replay the rest
both_kinds = pytest.mark.parametrize("kappa", [16.0, "ls"], ids=str)


@pytest.fixture(autouse=True)
def _start_anew() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def batch(step: int) -> tuple[Tensor, Tensor]:
    embedding, _ = geometry.planted(24, 50, 32, 45.0, seed=1)
    embedding = embedding + 0.25 * step * geometry.random(24, 1, 32, seed=step)[0]
    return embedding.to(DEVICE, copy=True), torch.arange(24, device=DEVICE) + step


def heads(kappa: float | str) -> tuple[CosineLinear, CosineLinear]:
    _, weight = geometry.planted(24, 50, 32, 45.0, seed=1)
    return head_of(weight, kappa), head_of(weight, kappa)


def gradients(
    model: Callable[[Tensor], Tensor], parameters: list[nn.Parameter], x: Tensor, labels: Tensor
) -> list[Tensor]:
    """Make a step; return loss, input gradient and copies of the gradients, which a compiled step may reuse."""
    for parameter in parameters:
        parameter.grad = None
    x = x.detach().requires_grad_()
    loss = F.cross_entropy(model(x), labels)
    loss.backward()
    assert x.grad is not None
    found = [loss, x.grad, *(parameter.grad for parameter in parameters if parameter.grad is not None)]
    return [value.detach().clone() for value in found]


def assert_equal_steps(compiled_head: CosineLinear, eager: CosineLinear, compiled: Callable[[Tensor], Tensor]) -> None:
    for step in range(NUM_STEPS):
        torch.compiler.cudagraph_mark_step_begin()
        found = gradients(compiled, list(compiled_head.parameters()), *batch(step))
        expected = gradients(eager, list(eager.parameters()), *batch(step))
        for value, other in zip(found, expected, strict=True):
            assert distance(value, other) <= 1e-5
        assert distance(compiled_head.last_kappa, eager.last_kappa) <= 1e-6
        assert distance(compiled_head.kappa, eager.kappa) <= 1e-6
        assert distance(compiled_head.embedding_norm, eager.embedding_norm) <= 1e-6


@both_kinds
def test_training_equals_eager(kappa: float | str) -> None:
    inner, eager = heads(kappa)
    assert_equal_steps(inner, eager, torch.compile(inner, fullgraph=True, **BACKEND))


@needs_cuda("CUDA graphs")
@both_kinds
def test_training_with_reduced_overhead_equals_eager(kappa: float | str) -> None:
    inner, eager = heads(kappa)
    assert_equal_steps(inner, eager, torch.compile(inner, fullgraph=True, mode="reduce-overhead"))


@needs_cuda("CUDA graphs")
@both_kinds
def test_evaluation_with_reduced_overhead_equals_eager(kappa: float | str) -> None:
    inner, eager = heads(kappa)
    inner(batch(0)[0])
    eager(batch(0)[0])
    compiled = torch.compile(inner.eval(), fullgraph=True, mode="reduce-overhead")
    eager.eval()
    with torch.no_grad():
        for step in range(NUM_STEPS):
            torch.compiler.cudagraph_mark_step_begin()
            assert distance(compiled(batch(step)[0]), eager(batch(step)[0])) <= 1e-6
    assert distance(inner.last_kappa, eager.last_kappa) <= 1e-6


def test_a_compiled_timm_model_equals_eager() -> None:
    torch.manual_seed(0)
    eager = timm.create_model("test_vit", num_classes=20, img_size=32, depth=1, head="cos").to(DEVICE)
    inner = copy.deepcopy(eager)
    compiled = torch.compile(inner, **BACKEND)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    labels = torch.arange(8, device=DEVICE)
    found = gradients(compiled, list(inner.parameters()), images, labels)
    expected = gradients(eager, list(eager.parameters()), images, labels)
    # The convolution computes in TF32 on a GPU.
    assert distance(inner.head.last_kappa, eager.head.last_kappa) <= 1e-6
    assert distance(found[0], expected[0]) <= 1e-3
    assert distance(torch.cat([v.flatten() for v in found]), torch.cat([v.flatten() for v in expected])) <= 1e-2
