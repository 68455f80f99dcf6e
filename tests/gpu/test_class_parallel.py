"""The class-parallel head in a process group of one, NCCL on a GPU, equals the plain head."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cosify.functional import cosine, ls
from cosify.heads import ClassParallelCosineLinear, CosineSoftmaxLoss
from tests import geometry
from tests.gpu.device import CUDA, DEVICE, distance, head_of, matmul_precision, on_gpu

pytestmark = [*on_gpu, pytest.mark.usefixtures("process_group")]
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "blocks": {"margin": 0.35, "chunk": 64},
    "all": {"margin": 0.2, "angular_margin": 0.3, "label_smoothing": 0.1},
}


def problem() -> tuple[Tensor, Tensor, Tensor]:
    embedding, weight = geometry.planted(24, 300, 32, 45.0, seed=3)
    labels = torch.arange(24)
    labels[12:] += 1
    labels[::5] = -100
    return embedding, weight, labels.to(DEVICE)


def sharded_head_of(weight: Tensor, kappa: float | str, **settings: float) -> ClassParallelCosineLinear:
    head = ClassParallelCosineLinear(weight.shape[1], len(weight), kappa=kappa, device=DEVICE, **settings)
    assert torch.distributed.get_backend(head.process_group) == ("nccl" if CUDA else "gloo")
    with torch.no_grad():
        head.weight.copy_(weight)
    return head


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kappa", ["ls", "ml", "rule", "trainable", "adacos-dynamic", 16.0], ids=str)
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_loss_gradients_and_kappa_equal_the_plain_heads(
    kappa: float | str, settings: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ls, "GRID_WORK", {"cpu": 0, "cuda": 0})  # the plain head, too, is exact in TF32
    embedding, weight, labels = problem()
    plain, sharded = head_of(weight, kappa), sharded_head_of(weight, kappa)
    x, y = (embedding.to(DEVICE, copy=True).requires_grad_() for _ in range(2))
    with matmul_precision(precision):
        expected = CosineSoftmaxLoss(plain, **SETTINGS[settings])(x, labels)
        loss = CosineSoftmaxLoss(sharded, **SETTINGS[settings])(y, labels)
        expected.backward()
        loss.backward()
    tolerance = 1e-5 if precision == "highest" else 5e-3
    assert distance(loss, expected) <= tolerance
    assert distance(y.grad, x.grad) <= tolerance
    for (name, value), (_, other) in zip(sharded.named_parameters(), plain.named_parameters(), strict=True):
        assert distance(value.grad, other.grad) <= tolerance, name
    if kappa == "ls":
        assert torch.equal(sharded.last_kappa, plain.last_kappa)
    assert distance(sharded.kappa, plain.kappa) <= tolerance


def test_predictions_are_the_nearest_classes() -> None:
    embedding, weight, _ = problem()
    index, largest = sharded_head_of(weight, "ls").predict(embedding.to(DEVICE))
    expected = cosine(embedding.double(), weight.double()).max(dim=1)
    assert torch.equal(index.cpu(), expected.indices)
    assert distance(largest, expected.values) <= 1e-6


def test_a_sample_of_the_classes_trains() -> None:
    embedding, weight, labels = problem()
    head = sharded_head_of(weight, "ls", sample_fraction=0.5)
    CosineSoftmaxLoss(head)(embedding.to(DEVICE), labels).backward()
    assert head.weight.grad is not None
    chosen = head.weight.grad.abs().sum(dim=1) > 0
    assert int(chosen.sum()) == 150
    assert chosen[labels[labels >= 0]].all()
