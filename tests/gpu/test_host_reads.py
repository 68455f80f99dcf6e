"""Where kappa is fixed, and where LS takes the whole grid, no step waits for the device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cosify.heads import CosineHead, CosineSoftmaxLoss
from cosify.heads.kappa_statistics import KappaStatistics
from tests import geometry
from tests.gpu.device import DEVICE, head_of, needs_cuda, on_gpu

pytestmark = [
    *on_gpu,
    needs_cuda("queue to wait for"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning"),
]
Step = Callable[[Tensor, Tensor], Tensor]


@contextmanager
def no_waiting() -> Iterator[None]:
    """Raise inside where the host waits for the device."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def by_head(head: CosineHead) -> Step:
    return lambda x, labels: F.cross_entropy(head(x), labels)


STEPS: dict[str, tuple[Callable[[CosineHead], Step], float | str]] = {
    "head, fixed": (by_head, 16.0),
    "head, ls": (by_head, "ls"),
    "head, trainable": (by_head, "trainable"),
    "head, adacos": (by_head, "adacos"),
    "loss, fixed": (CosineSoftmaxLoss, 16.0),
    "loss with a margin, fixed": (lambda head: CosineSoftmaxLoss(head, 0.35, label_smoothing=0.1), 16.0),
}


def test_waiting_is_noticed() -> None:
    value = torch.ones(1, device=DEVICE)
    with pytest.raises(RuntimeError, match="synchronizing CUDA operation"), no_waiting():
        value.item()


@pytest.mark.parametrize("name", STEPS)
def test_a_training_step_does_not_wait(name: str) -> None:
    make, kappa = STEPS[name]
    embedding, weight = geometry.planted(32, 100, 64, 45.0, seed=1)
    x, labels = embedding.to(DEVICE).requires_grad_(), torch.arange(32, device=DEVICE)
    head, statistics = head_of(weight, kappa), KappaStatistics(DEVICE)
    step = make(head)

    def train() -> Tensor:
        loss = step(x, labels)
        loss.backward()
        assert head.last_kappa is not None
        statistics.update(head.last_kappa)
        return loss.detach()

    train()  # sets up cuBLAS
    with no_waiting():
        losses = [train() for _ in range(2)]
    assert torch.stack(losses).isfinite().all()
    summary = statistics.summary()
    assert summary is not None
    assert sum(summary.histogram) == 3 * 32


@pytest.mark.parametrize("kappa", [16.0, "ls"], ids=str)
def test_evaluation_does_not_wait_once_the_norms_are_known(kappa: float | str) -> None:
    embedding, weight = geometry.planted(32, 100, 64, 45.0, seed=1)
    x, head = embedding.to(DEVICE), head_of(weight, kappa).eval()
    with torch.no_grad():
        expected = head(x)
        with no_waiting():
            logits = head(x)
    assert torch.equal(logits, expected)
