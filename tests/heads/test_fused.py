"""The loss with its short operations compiled gives what it gives without, in graphs without a break."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._dynamo.config
from torch import Tensor

from cosify.functional import fusion, ls
from cosify.functional.search import certified
from cosify.heads import CosineLinear, CosineSoftmaxLoss
from tests import geometry

pytestmark = pytest.mark.slow  # they compile for ten seconds
CASES: dict[str, tuple[float | str, dict[str, Any], int]] = {
    # kappa, settings of the loss, rows: the cosines lie in the room of the weight's gradient, or beside it
    "ls": ("ls", {"chunk": 100, "margin": 0.2, "angular_margin": 0.3, "label_smoothing": 0.1}, 24),
    "trainable": ("trainable", {}, 24),
    "fixed": (16.0, {"label_smoothing": 0.1}, 48),
}


@pytest.fixture(autouse=True)
def _start_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fusion, "OPTIONS", {"dynamic": True, "fullgraph": True, "backend": "aot_eager"})
    monkeypatch.setitem(ls.GRID_WORK, "cpu", 0)
    torch.compiler.reset()
    fusion.compiled.cache_clear()
    with torch._dynamo.config.patch(recompile_limit=32):  # beyond it, a function would stay eager
        yield
    torch.compiler.reset()
    fusion.compiled.cache_clear()


def steps(kappa: float | str, settings: dict[str, Any], num_rows: int, wanted: bool) -> list[list[Tensor]]:
    """Return loss, gradients and kappa of three steps with batches of different sizes."""
    embedding, weight = geometry.planted(num_rows, 250, 32, 40.0, seed=1)
    head = CosineLinear(32, 250, kappa=kappa)
    head.weight.data.copy_(weight)
    loss_of, found = CosineSoftmaxLoss(head, fused=wanted, **settings), []
    for size in (num_rows, num_rows - 5, 1):
        x, labels = embedding[:size].clone().requires_grad_(), torch.arange(size)
        labels[::7] = -100 if size > 1 else 0
        head.zero_grad()
        loss = loss_of(x, labels)
        loss.backward()
        assert x.grad is not None
        kept = [loss, x.grad, head.last_kappa, head.kappa, *(parameter.grad for parameter in head.parameters())]
        found.append([value.detach().clone() for value in kept if value is not None])
    return found


@pytest.mark.parametrize("wanted", [False, True])
def test_the_loss_stays_one_graph_of_torch_compile(wanted: bool) -> None:
    loss_of = CosineSoftmaxLoss(CosineLinear(16, 50, kappa="ls"), fused=wanted).eval()
    x, labels = geometry.random(8, 50, 16, seed=1)[0], torch.arange(8)
    compiled = torch.compile(loss_of, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, labels), loss_of(x, labels))


def test_a_loss_of_an_earlier_version_runs() -> None:
    loss_of = CosineSoftmaxLoss(CosineLinear(16, 50))
    del loss_of.__dict__["fused"]  # as it is unpickled
    assert loss_of(torch.randn(4, 16), torch.arange(4)).isfinite()


@pytest.mark.parametrize("name", CASES)
def test_a_fused_step_equals_an_eager_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certified, "READ_FREELY", ())  # the search goes as on an accelerator
    eager = steps(*CASES[name], wanted=False)
    assert fusion.compiled.cache_info().currsize == 0
    found = steps(*CASES[name], wanted=True)
    assert fusion.compiled.cache_info().currsize > 3
    for values, expected in zip(found, eager, strict=True):
        for value, other in zip(values, expected, strict=True):
            torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-7)
