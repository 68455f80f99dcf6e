"""Every function of cosify.functional against the plain-loop float64 reference."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cosify import functional
from cosify.functional.ml import log_vmf_normaliser
from tests import reference
from tests.geometry import problems

TOLERANCE = {torch.float32: {"rtol": 2e-5, "atol": 2e-6}, torch.float64: {"rtol": 1e-11, "atol": 1e-12}}
PROBLEMS = problems()

both_dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
every_problem = pytest.mark.parametrize("name", PROBLEMS)


def load(name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, np.ndarray, np.ndarray]:
    embedding, weight = (rows.to(dtype) for rows in PROBLEMS[name])
    return embedding, weight, embedding.double().numpy(), weight.double().numpy()


def same(value: Tensor, expected: object, dtype: torch.dtype) -> None:
    assert value.dtype == dtype
    torch.testing.assert_close(value, torch.as_tensor(expected, dtype=torch.float64).to(dtype), **TOLERANCE[dtype])


@both_dtypes
@every_problem
def test_cosine(name: str, dtype: torch.dtype) -> None:
    embedding, weight, x, w = load(name, dtype)
    same(functional.cosine(embedding, weight), reference.cosine(x, w), dtype)


def test_kappa_grid() -> None:
    same(functional.kappa_grid(), reference.grid(), torch.float32)
    assert functional.kappa_grid()[10].item() == pytest.approx(5.388, abs=5e-4)


@both_dtypes
@every_problem
def test_ls_energy(name: str, dtype: torch.dtype) -> None:
    embedding, weight, x, w = load(name, dtype)
    kappa = torch.linspace(0.2, 140, embedding.shape[0], dtype=dtype)
    expected = [reference.ls_energy(row, w, k) for row, k in zip(x.tolist(), kappa.tolist(), strict=True)]
    same(functional.ls_energy(embedding, weight, kappa), expected, dtype)


@both_dtypes
@every_problem
def test_ls_kappa_is_the_float64_argmin_wherever_the_gap_shows(name: str, dtype: torch.dtype) -> None:
    embedding, weight, x, w = load(name, dtype)
    indices, gaps = reference.ls_kappa(x, w, reference.grid())
    found = functional.ls_kappa(embedding, weight)
    clear = [i for i, gap in enumerate(gaps) if gap > 1e-6]
    assert len(clear) >= len(gaps) / 2 or name in ("x on a prototype",), "the problem decides too little"
    grid = functional.kappa_grid().to(dtype)
    assert [int((grid == found[i]).nonzero()) for i in clear] == [indices[i] for i in clear]


@both_dtypes
@every_problem
def test_ml_kappa(name: str, dtype: torch.dtype) -> None:
    embedding, weight, x, w = load(name, dtype)
    grid = functional.kappa_grid().double()
    normaliser = log_vmf_normaliser(grid, x.shape[1]).tolist()
    found = functional.ml_kappa(embedding, weight)
    for row, value in zip(x.tolist(), found.tolist(), strict=True):
        energies = [reference.ml_energy(row, w, k, n) for k, n in zip(grid.tolist(), normaliser, strict=True)]
        at = int((grid - value).abs().argmin())
        assert energies[at] <= min(energies) + 1e-5


@pytest.mark.parametrize(("dim", "slack"), [(2, 0.05), (3, 0.05), (8, 0.05), (64, 0.05), (512, 2e-4), (2048, 2e-7)])
def test_vmf_normaliser_is_a_close_upper_bound(dim: int, slack: float) -> None:
    grid = functional.kappa_grid().double()
    exact = torch.tensor([reference.log_vmf_normaliser(k, dim) for k in grid.tolist()], dtype=torch.float64)
    above = log_vmf_normaliser(grid, dim) - exact
    assert above.min() > -1e-9
    assert above.max() < slack


@both_dtypes
@every_problem
def test_rule_kappa(name: str, dtype: torch.dtype) -> None:
    _, weight, _, w = load(name, dtype)
    same(functional.rule_kappa(weight), reference.rule_kappa(w), dtype)


def test_rule_kappa_of_identical_weights_is_large_and_finite() -> None:
    value = functional.rule_kappa(torch.ones(5, 8))
    assert 1e6 < value.item() < math.inf


def test_adacos_kappa() -> None:
    assert functional.adacos_kappa(2) == 0.0
    assert functional.adacos_kappa(1000) == pytest.approx(9.76763, abs=1e-5)


@both_dtypes
@every_problem
@pytest.mark.parametrize("margin", [0.0, 0.35])
def test_loss_with_hard_and_soft_labels(name: str, dtype: torch.dtype, margin: float) -> None:
    embedding, weight, x, w = load(name, dtype)
    num_rows, num_classes = x.shape[0], w.shape[0]
    kappa = torch.linspace(1, 60, num_rows, dtype=dtype)
    labels = torch.arange(num_rows) % num_classes
    hard = np.eye(num_classes)[labels.numpy()]
    soft = 0.7 * hard + 0.3 * np.roll(hard, 1, axis=1)
    for given, targets in ((labels, hard), (torch.from_numpy(soft).to(dtype), soft)):
        expected = reference.cosine_softmax_loss(x, w, targets, kappa.tolist(), margin)
        same(functional.cosine_softmax_loss(embedding, weight, given, kappa, margin), expected, dtype)


def test_simplified_loss() -> None:
    cosines = torch.linspace(-1, 1, 9, dtype=torch.float64)
    for num_classes in (2, 10, 1000):
        for kappa in (0.1, 5.0, 60.0):
            expected = [reference.simplified_loss(z, num_classes, kappa) for z in cosines.tolist()]
            value = functional.simplified_loss(cosines, num_classes, kappa)
            torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("num_classes", [2, 10, 100, 1000])
@pytest.mark.parametrize("target_cosine", [0.3, 0.75, 0.95])
@pytest.mark.parametrize("shape", ["orthogonal", "simplex", "correlated"])
def test_ls_kappa_meets_its_closed_form(num_classes: int, target_cosine: float, shape: str) -> None:
    correlation = {"orthogonal": 0.0, "simplex": -1 / (num_classes - 1), "correlated": 0.3}[shape]
    expected = reference.equicorrelated_kappa(target_cosine, num_classes, correlation)
    gram = torch.full((num_classes, num_classes), correlation, dtype=torch.float64).fill_diagonal_(1.0)
    values, vectors = torch.linalg.eigh(gram)
    span = vectors * values.clamp_min(0).sqrt()
    weight = torch.cat([span, torch.zeros(num_classes, 1, dtype=torch.float64)], dim=1)
    embedding = target_cosine * weight[:1]
    embedding[0, -1] = math.sqrt(1 - target_cosine**2)
    fine = torch.linspace(math.log(expected) - 0.3, math.log(expected) + 0.3, 2001, dtype=torch.float64).exp()
    assert functional.ls_kappa(embedding, weight, fine).item() == pytest.approx(expected, rel=3e-4)


def test_expected_kappa_is_the_closed_form_at_its_default_angle() -> None:
    for num_classes in (2, 10, 1000):
        expected = reference.equicorrelated_kappa(0.75, num_classes, 0.0)
        assert functional.expected_kappa(num_classes) == pytest.approx(expected)
