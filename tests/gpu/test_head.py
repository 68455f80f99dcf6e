"""A head of every policy equals float64 on the CPU, in every precision that people train in."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cosify import functional
from cosify.heads import POLICIES, CosineConv1x1
from tests import geometry
from tests.gpu.device import DEVICE, distance, head_of, matmul_precision, on_gpu

pytestmark = on_gpu
NUM_ROWS, NUM_CLASSES, DIM = 48, 100, 64
PRECISIONS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "fp32": nullcontext,
    "tf32": lambda: matmul_precision("high"),
    "bf16": lambda: torch.autocast(DEVICE.type, torch.bfloat16),
    "fp16": lambda: torch.autocast(DEVICE.type, torch.float16),
}
# Of a cosine and, relative, of a gradient.  Heads leave autocast, so that half precision costs them nothing.
COSINE_ERROR = {"fp32": 2e-6, "tf32": 2e-3, "bf16": 2e-6, "fp16": 2e-6}
GRADIENT_ERROR = {"fp32": 2e-5, "tf32": 1e-2, "bf16": 2e-5, "fp16": 2e-5}
every_policy = pytest.mark.parametrize("kappa", [*POLICIES, 12.5], ids=str)
every_precision = pytest.mark.parametrize("precision", PRECISIONS)


@pytest.fixture
def inside(precision: str) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Return the context of forward passes; TF32 holds for the backward pass too, autocast must not."""
    with PRECISIONS["tf32"]() if precision == "tf32" else nullcontext():
        yield nullcontext if precision == "tf32" else PRECISIONS[precision]


def problem() -> tuple[Tensor, Tensor, Tensor]:
    embedding, weight = geometry.planted(NUM_ROWS, NUM_CLASSES, DIM, 45.0, seed=3)
    return embedding, weight, torch.arange(NUM_ROWS).roll(NUM_ROWS // 2)  # half of the labels are not the nearest class


def exact_cosine(embedding: Tensor, weight: Tensor) -> Tensor:
    return F.normalize(embedding.double()) @ F.normalize(weight.double()).T


def exact_kappa(kappa: float | str, embedding: Tensor, weight: Tensor) -> Tensor:
    """Return what the policy finds in the first batch, in float64."""
    embedding, weight = embedding.double(), weight.double()
    if kappa == "ls":
        return functional.ls_kappa(embedding, weight)
    if kappa == "ml":
        return functional.ml_kappa(embedding, weight)
    if kappa == "rule":
        return functional.rule_kappa(weight)
    start = functional.adacos_kappa(len(weight))
    if kappa == "adacos-dynamic":
        cosine = exact_cosine(embedding, weight)
        nearest = cosine.amax(dim=1)
        others = (start * cosine).exp().sum(dim=1) - (start * nearest).exp()
        return others.mean().log() / nearest.median().clamp_min(math.cos(math.pi / 4))
    return torch.tensor(
        {"2ls": 2.4 * functional.expected_kappa(len(weight)), "adacos": start, "trainable": 1 / 0.07}.get(
            str(kappa), kappa
        ),
        dtype=torch.float64,
    )


@every_policy
@every_precision
def test_logits_kappa_and_gradients_equal_float64(
    kappa: float | str, precision: str, inside: Callable[[], AbstractContextManager[None]]
) -> None:
    embedding, weight, labels = problem()
    head, x = head_of(weight, kappa), embedding.to(DEVICE, copy=True).requires_grad_()
    with inside():
        logits = head(x)
    F.cross_entropy(logits, labels.to(DEVICE)).backward()
    assert logits.dtype == torch.float32
    assert head.last_kappa is not None
    assert (logits.abs().amax(dim=1) <= head.last_kappa * (1 + COSINE_ERROR[precision])).all()

    found = head.last_kappa.cpu().double()
    if precision != "tf32":  # whose energies may lie in another order
        torch.testing.assert_close(found, exact_kappa(kappa, embedding, weight).expand(NUM_ROWS), rtol=1e-5, atol=0)
    y, w = embedding.double().requires_grad_(), weight.double().requires_grad_()
    cosine = exact_cosine(y, w)
    error = (logits.detach().cpu().double() / found.unsqueeze(1) - cosine.detach()).abs().max()
    assert error <= COSINE_ERROR[precision]

    log_kappa = found.log().requires_grad_()
    F.cross_entropy(log_kappa.exp().unsqueeze(1) * cosine, labels).backward()
    assert distance(x.grad, y.grad) <= GRADIENT_ERROR[precision]
    assert distance(head.weight.grad, w.grad) <= GRADIENT_ERROR[precision]
    if head.log_kappa is not None:
        assert log_kappa.grad is not None
        assert distance(head.log_kappa.grad, log_kappa.grad.sum().reshape(1)) <= GRADIENT_ERROR[precision]


@every_policy
@every_precision
def test_evaluation_goes_on_with_the_running_kappa(
    kappa: float | str, precision: str, inside: Callable[[], AbstractContextManager[None]]
) -> None:
    embedding, weight, _ = problem()
    head = head_of(weight, kappa)
    means = []
    with inside():
        for part in (embedding[:20], embedding[20:]):
            head(part.to(DEVICE))
            assert head.last_kappa is not None
            means.append(head.last_kappa.mean())
    expected = torch.lerp(means[0], means[1], head.policy.momentum)
    torch.testing.assert_close(head.kappa, expected, rtol=1e-5, atol=0)
    norms = [embedding[:20].norm(dim=1).mean(), embedding[20:].norm(dim=1).mean()]
    torch.testing.assert_close(head.embedding_norm.cpu(), torch.lerp(*norms, 0.01), rtol=1e-5, atol=0)

    head.eval()
    before = head.kappa.clone()
    exact = before.cpu().double() * exact_cosine(embedding, weight)
    for gradients in (False, True):  # the short way, and that of training
        with inside(), torch.set_grad_enabled(gradients):
            logits = head(embedding.to(DEVICE))
        assert logits.dtype == torch.float32
        error = (logits.detach().cpu().double() - exact).abs().max()
        assert error <= COSINE_ERROR[precision] * before
    assert torch.equal(head.kappa, before)


@every_policy
def test_a_scaled_loss_in_half_precision_trains(kappa: float | str) -> None:
    embedding, weight, labels = problem()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(DIM, DIM), torch.nn.Tanh(), head_of(weight, kappa))
    model.to(DEVICE)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=1024.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    losses = []
    for step in range(10):
        optimizer.zero_grad()
        with torch.autocast(DEVICE.type, torch.float16):
            loss = F.cross_entropy(model(embedding.to(DEVICE)), labels.to(DEVICE))
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), (name, step)
            assert parameter.grad.abs().sum() > 0, (name, step)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for old, parameter in zip(before, model.parameters(), strict=True):
        assert not torch.equal(old, parameter)


def test_a_convolutional_head_equals_the_linear_one_in_channels_last() -> None:
    maps = torch.randn(4, DIM, 5, 3, generator=torch.Generator().manual_seed(0))
    _, weight, _ = problem()
    linear, conv = head_of(weight, "ls"), CosineConv1x1(DIM, NUM_CLASSES, kappa="ls", device=DEVICE)
    with torch.no_grad():
        conv.weight.copy_(weight.reshape(conv.weight.shape))
    conv.to(memory_format=torch.channels_last)
    logits = conv(maps.to(DEVICE).contiguous(memory_format=torch.channels_last))
    expected = linear(maps.to(DEVICE).movedim(1, -1))
    assert distance(logits.movedim(1, -1), expected) <= 1e-6
    assert distance(conv.last_kappa, linear.last_kappa) == 0


def test_an_overflow_leaves_the_running_means_alone() -> None:
    embedding, weight, _ = problem()
    head = head_of(weight, "ls")
    head(embedding.to(DEVICE))
    before = head.kappa.clone(), head.embedding_norm.clone()
    embedding[3] = torch.inf
    if DEVICE.type == "cpu":
        with pytest.raises(ValueError, match="embedding holds NaN or infinity in 1 of 48 rows"):
            head(embedding)
    else:
        head(embedding.to(DEVICE))
    assert head.kappa.isfinite()
    assert torch.equal(head.embedding_norm, before[1])
