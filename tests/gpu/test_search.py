"""kappa by least squares is the float64 argmin on both routes, and in TF32 on the certified one."""

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor

from cosify import functional
from cosify.functional import ls
from cosify.functional.search import Scan
from tests import geometry, reference
from tests.gpu.device import DEVICE, matmul_precision, on_gpu

pytestmark = on_gpu
WORK = {"grid": 1 << 62, "certified": 0}  # multiply-adds up to which the whole grid is taken
CASES: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "random": lambda: geometry.random(64, 1000, 128, seed=1),
    "planted": lambda: geometry.planted(64, 1000, 128, 45.0, seed=2),
    "near": lambda: geometry.planted(48, 400, 96, 20.0, seed=3),
    "many classes": lambda: geometry.planted(16, 20000, 64, 40.0, seed=4),
    "tight clusters": lambda: geometry.clustered(48, 500, 128, seed=5),
    # One long sum of shares behind a large first one: added one by one in float32, it is off by more than ties are.
    "cone": lambda: geometry.cone(64, 93431, 128, seed=7),
    "mild clusters": lambda: geometry.clustered(48, 500, 128, seed=6, cosine=0.5),
}
every_case = pytest.mark.parametrize("name", CASES)


def use_route(monkeypatch: pytest.MonkeyPatch, route: str, embedding: Tensor, weight: Tensor) -> None:
    monkeypatch.setattr(ls, "GRID_WORK", dict.fromkeys(("cpu", "cuda"), WORK[route]))
    taken = ls.ls_route(Scan.of(embedding, weight), functional.kappa_grid(device=DEVICE))
    assert (taken == "certified") == (route == "certified")


def assert_exact(embedding: Tensor, weight: Tensor, kappa: Tensor) -> None:
    """Compare with all energies in float64, as tests/functional/test_ls_search.py does."""
    energies = reference.ls_energies(embedding.numpy(), weight.numpy(), reference.grid())
    ranked = np.sort(energies, axis=0)
    clear = ranked[1] - ranked[0] > 1e-6
    assert clear.mean() > 0.9
    index = (kappa.cpu().unsqueeze(1) == functional.kappa_grid()).int().argmax(dim=1).numpy()
    assert (index == energies.argmin(axis=0))[clear].all()
    # What is not clear must at least be as good.
    assert (energies[index, np.arange(len(index))] - ranked[0] <= 1e-6).all()


@every_case
@pytest.mark.parametrize("route", WORK)
def test_float32_finds_the_argmin_of_float64(name: str, route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding, weight = CASES[name]()
    x, w = embedding.to(DEVICE), weight.to(DEVICE)
    use_route(monkeypatch, route, x, w)
    kappa = functional.ls_kappa(x, w)
    assert kappa.device.type == DEVICE.type
    assert_exact(embedding, weight, kappa)


@every_case
def test_the_certified_route_is_exact_in_tf32_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding, weight = CASES[name]()
    x, w = embedding.to(DEVICE), weight.to(DEVICE)
    use_route(monkeypatch, "certified", x, w)
    with matmul_precision("high"):
        kappa = functional.ls_kappa(x, w)
    assert_exact(embedding, weight, kappa)


@every_case
@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_start_and_blocks_change_nothing(name: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding, weight = (rows.to(DEVICE) for rows in CASES[name]())
    use_route(monkeypatch, "certified", embedding, weight)
    with matmul_precision("high") if precision == "tf32" else nullcontext():
        expected = functional.ls_kappa(embedding, weight)
        for start in (0.1, 150.0):  # before the grid and beyond it
            found = functional.ls_kappa(embedding, weight, start=start, chunk=1 + len(weight) // 7)
            assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("route", WORK)
def test_half_precision_is_taken_as_it_is(route: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding, weight = (rows.to(dtype) for rows in CASES["planted"]())
    x, w = embedding.to(DEVICE), weight.to(DEVICE)
    use_route(monkeypatch, route, x, w)
    with torch.autocast(DEVICE.type, dtype):
        kappa = functional.ls_kappa(x, w)
    assert_exact(embedding.float(), weight.float(), kappa)


def test_a_zero_row_gets_the_smallest_candidate_on_both_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding, weight = (rows.to(DEVICE) for rows in CASES["random"]())
    embedding[::5] = 0
    for route in WORK:
        use_route(monkeypatch, route, embedding, weight)
        assert (functional.ls_kappa(embedding, weight)[::5] == functional.kappa_grid(device=DEVICE)[0]).all()
