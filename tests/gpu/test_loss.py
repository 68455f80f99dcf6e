"""The embedding-level loss equals float64 autograd on the CPU, with all that it can do besides Eq. (2)."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cosify.functional import fusion, ls
from cosify.functional.search import blocks
from cosify.heads import CosineSoftmaxLoss
from tests import geometry
from tests.gpu.device import CUDA, DEVICE, distance, head_of, on_gpu

pytestmark = on_gpu
TOLERANCE = 1e-5
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "margin": {"margin": 0.35},
    "angular": {"angular_margin": 0.5},
    "smooth": {"label_smoothing": 0.1},
    "all": {"margin": 0.2, "angular_margin": 0.3, "label_smoothing": 0.1, "chunk": 64},
}
# Rows, classes, d: cosines kept in the room of the weight's gradient, or beside it.
SHAPES = {"few rows": (24, 300, 32), "many rows": (96, 300, 32)}
every_setting = pytest.mark.parametrize("settings", SETTINGS)
every_kappa = pytest.mark.parametrize("kappa", ["ls", "trainable", 16.0], ids=str)


def problem(shape: str = "few rows") -> tuple[Tensor, Tensor, Tensor]:
    num_rows, num_classes, dim = SHAPES[shape]
    embedding, weight = geometry.planted(num_rows, num_classes, dim, 45.0, seed=3)
    labels = torch.arange(num_rows)
    labels[num_rows // 2 :] += 1  # half of the labels are not the nearest class
    labels[::5] = -100
    return embedding, weight, labels


def exact_loss(
    embedding: Tensor,
    weight: Tensor,
    labels: Tensor,
    kappa: Tensor,
    *,
    margin: float = 0.0,
    angular_margin: float = 0.0,
    label_smoothing: float = 0.0,
    chunk: int | None = None,
) -> Tensor:
    """Return the loss by autograd over [B, C]."""
    cosine = F.linear(F.normalize(embedding), F.normalize(weight))
    rows = (labels >= 0).nonzero().squeeze(1)
    target = cosine[rows, labels[rows]]
    angle = torch.acos(target) + angular_margin
    shifted = torch.where(angle < math.pi, torch.cos(angle), target - angular_margin * math.sin(angular_margin))
    cosine = cosine.index_put((rows, labels[rows]), shifted - margin)
    return F.cross_entropy(kappa.reshape(-1, 1) * cosine, labels, label_smoothing=label_smoothing)


def assert_equals_float64(
    kappa: float | str, settings: str, shape: str, criterion_dtype: torch.dtype | None, *, joined: bool = False
) -> None:
    embedding, weight, labels = problem(shape)
    head, x = head_of(weight, kappa), embedding.to(DEVICE, copy=True).requires_grad_()
    with torch.autocast(DEVICE.type, criterion_dtype, enabled=criterion_dtype is not None):
        loss = CosineSoftmaxLoss(head, fused=joined, **SETTINGS[settings])(x, labels.to(DEVICE))
    loss.backward()
    assert loss.dtype == torch.float32

    y, w = embedding.double().requires_grad_(), weight.double().requires_grad_()
    assert head.last_kappa is not None
    log_kappa = head.last_kappa.cpu().double().log().requires_grad_()
    expected = exact_loss(y, w, labels, log_kappa.exp(), **SETTINGS[settings])
    expected.backward()
    assert distance(loss, expected) <= TOLERANCE
    assert distance(x.grad, y.grad) <= TOLERANCE
    assert distance(head.weight.grad, w.grad) <= TOLERANCE
    if head.log_kappa is not None:
        assert log_kappa.grad is not None
        assert distance(head.log_kappa.grad, log_kappa.grad.sum().reshape(1)) <= TOLERANCE


@every_kappa
@every_setting
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("route", ["grid", "certified"])
def test_value_and_gradients_equal_float64(
    kappa: float | str, settings: str, shape: str, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ls, "GRID_WORK", dict.fromkeys(("cpu", "cuda"), 1 << 62 if route == "grid" else 0))
    assert_equals_float64(kappa, settings, shape, None)


@every_kappa
@pytest.mark.parametrize("settings", ["plain", "all"])
# inductor advises TF32, and tells how it splits reductions; it and triton use deprecated parts of Python.
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_fused_step_equals_float64(kappa: float | str, settings: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ls, "GRID_WORK", {"cpu": 0, "cuda": 0})
    if not CUDA:  # C++ kernels take a minute
        monkeypatch.setitem(fusion.OPTIONS, "backend", "eager")
    for shape in SHAPES:
        assert_equals_float64(kappa, settings, shape, None, joined=True)


@every_kappa
@every_setting
def test_cosines_that_are_not_kept_change_nothing(
    kappa: float | str, settings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "STORE_BYTES", {"cpu": 0, "cuda": 0})
    assert_equals_float64(kappa, settings, "many rows", None)


@every_kappa
@every_setting
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_leaves_value_and_gradients_in_float32(kappa: float | str, settings: str, dtype: torch.dtype) -> None:
    assert_equals_float64(kappa, settings, "few rows", dtype)


def test_a_half_precision_embedding_gets_its_gradient_in_its_dtype() -> None:
    embedding, weight, labels = problem()
    x = embedding.to(DEVICE, torch.bfloat16).requires_grad_()
    head = head_of(weight, "ls")
    CosineSoftmaxLoss(head, margin=0.35)(x, labels.to(DEVICE)).backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16

    y, other = x.detach().float().requires_grad_(), head_of(weight, "ls")
    CosineSoftmaxLoss(other, margin=0.35)(y, labels.to(DEVICE)).backward()
    assert torch.equal(head.last_kappa, other.last_kappa)
    assert distance(x.grad, y.grad) <= 2**-8
    assert distance(head.weight.grad, other.weight.grad) <= TOLERANCE


def test_samples_left_out_count_nowhere() -> None:
    embedding, weight, labels = problem()
    kept = labels >= 0
    head, other = head_of(weight, "ls"), head_of(weight, "ls")
    loss = CosineSoftmaxLoss(head)(embedding.to(DEVICE), labels.to(DEVICE))
    expected = CosineSoftmaxLoss(other)(embedding[kept].to(DEVICE), labels[kept].to(DEVICE))
    assert distance(loss, expected) <= TOLERANCE
    assert distance(head.kappa, other.kappa) <= TOLERANCE
    assert distance(head.embedding_norm, other.embedding_norm) <= TOLERANCE
    nothing = CosineSoftmaxLoss(head)(embedding.to(DEVICE), torch.full_like(labels, -100).to(DEVICE))
    nothing.backward()
    assert nothing.item() == 0
    assert head.weight.grad is not None
    assert (head.weight.grad == 0).all()
