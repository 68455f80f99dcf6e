"""Invariances, limits and gradients that hold for any input."""

import pytest
import torch

from cosify import functional
from tests.geometry import problems

PROBLEMS = problems()


@pytest.mark.parametrize("name", PROBLEMS)
def test_cosine_and_kappa_ignore_scale(name: str) -> None:
    embedding, weight = PROBLEMS[name]
    for scale in (1e-30, 1e30):
        torch.testing.assert_close(
            functional.cosine(scale * embedding, weight / scale), functional.cosine(embedding, weight)
        )
    assert torch.equal(functional.ls_kappa(4 * embedding, 0.5 * weight), functional.ls_kappa(embedding, weight))


def test_permuting_classes_and_samples() -> None:
    embedding, weight = PROBLEMS["planted 60 deg"]
    order = torch.randperm(len(weight), generator=torch.Generator().manual_seed(0))
    kappa = functional.ls_kappa(embedding, weight)
    assert torch.equal(functional.ls_kappa(embedding, weight[order]), kappa)
    assert torch.equal(functional.ls_kappa(embedding.flip(0), weight), kappa.flip(0))


def test_ties_go_to_the_smaller_kappa() -> None:
    equal = torch.ones(4, 3) * torch.tensor([[1.0], [2.0], [0.3], [7.0]])
    smallest = functional.kappa_grid()[0]
    assert torch.equal(functional.ls_kappa(torch.randn(5, 3), equal), smallest.expand(5))
    assert functional.ls_kappa(torch.zeros(1, 3), torch.randn(4, 3)).item() == smallest


def test_empty_batch_and_single_class() -> None:
    weight = torch.randn(4, 3)
    for estimate in (functional.ls_kappa, functional.ml_kappa):
        assert estimate(torch.empty(0, 3), weight).shape == (0,)
        assert estimate(torch.randn(2, 3), weight[:1]).shape == (2,)
    assert functional.cosine(torch.empty(0, 3), weight).shape == (0, 4)


def test_limits_of_kappa() -> None:
    embedding, weight = PROBLEMS["random"]
    labels = functional.cosine(embedding, weight).argmax(1)
    uniform = functional.cosine_softmax_loss(embedding, weight, labels, 1e-6)
    torch.testing.assert_close(uniform, torch.tensor(float(len(weight))).log())
    assert functional.cosine_softmax_loss(embedding, weight, labels, 1e4).item() == pytest.approx(0.0, abs=1e-6)


def test_no_gradient_through_estimates() -> None:
    embedding, weight = (rows.clone().requires_grad_() for rows in PROBLEMS["random"])
    assert not functional.ls_kappa(embedding, weight).requires_grad
    assert not functional.ml_kappa(embedding, weight).requires_grad
    assert not functional.rule_kappa(weight).requires_grad


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random", "duplicated weights", "clusters"])
@pytest.mark.parametrize("margin", [0.0, 0.35])
@pytest.mark.parametrize("soft", [False, True])
def test_gradcheck_of_the_loss(name: str, margin: float, soft: bool) -> None:
    embedding, weight = (rows.double().requires_grad_() for rows in PROBLEMS[name])
    labels = torch.arange(len(embedding)) % len(weight)
    if soft:
        labels = torch.nn.functional.one_hot(labels, len(weight)).double() * 0.8 + 0.2 / len(weight)
    kappa = torch.linspace(2, 9, len(embedding), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, w, k: functional.cosine_softmax_loss(x, w, labels, k, margin), (embedding, weight, kappa)
    )


def test_gradcheck_of_the_energy() -> None:
    embedding, weight = (rows.double().requires_grad_() for rows in PROBLEMS["planted 60 deg"])
    kappa = torch.full((len(embedding),), 5.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(functional.ls_energy, (embedding, weight, kappa))


@pytest.mark.parametrize("name", ["zero embedding row", "zero weight row"])
def test_zero_rows_get_a_zero_gradient_and_the_rest_a_finite_one(name: str) -> None:
    embedding, weight = (rows.clone().requires_grad_() for rows in PROBLEMS[name])
    loss = functional.cosine_softmax_loss(embedding, weight, torch.arange(6), functional.ls_kappa(embedding, weight))
    loss.backward()
    for rows in (embedding, weight):
        assert rows.grad is not None
        assert rows.grad.isfinite().all()
        is_zero = rows.detach().abs().amax(1) == 0
        assert rows.grad[is_zero].abs().sum() == 0
        assert (rows.grad[~is_zero].abs().amax(1) > 0).all()


def test_half_precision_inputs_and_autocast_stay_in_float32() -> None:
    embedding, weight = PROBLEMS["planted 20 deg"]
    low = functional.cosine(embedding.bfloat16(), weight.bfloat16())
    assert low.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = functional.cosine(embedding, weight)
        kappa = functional.ls_kappa(embedding, weight)
    assert torch.equal(inside, functional.cosine(embedding, weight))
    assert torch.equal(kappa, functional.ls_kappa(embedding, weight))
