"""The certified search is exact, and does not depend on how it got there."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cosify import functional
from cosify.functional import ls
from cosify.functional.search import Scan, blocks, certified, rounding, softmax
from cosify.functional.search.bounds import SpanBounds, bound_above, bound_below
from cosify.functional.search.softmax import others
from tests import geometry, reference
from tests.tensor_sizes import tensor_sizes

GRID = functional.kappa_grid()
STARTS = (0.1, 8.0, 150.0)  # before the grid, near the answer of most, beyond the grid


def etf(num_rows: int, num_classes: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    noise, _ = geometry.random(num_rows, num_classes, dim, seed)
    weight = torch.eye(num_classes, dim) - 1 / num_classes
    return weight[torch.arange(num_rows) % num_classes] + 0.03 * noise, weight


def offset(num_rows: int, num_classes: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """Prototypes with a mean cosine of 0.3, as behind a ReLU."""
    embedding, weight = geometry.planted(num_rows, num_classes, dim, 50.0, seed)
    common = torch.randn(dim, generator=torch.Generator().manual_seed(seed + 1))
    return embedding + 2 * common / common.norm(), weight + 0.65 * common


def duplicated(num_rows: int, num_classes: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    embedding, weight = geometry.planted(num_rows, num_classes, dim, 40.0, seed)
    weight[num_classes // 2 :] = weight[: num_classes - num_classes // 2].clone()
    return embedding, weight


def with_zeros(num_rows: int, num_classes: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    embedding, weight = geometry.planted(num_rows, num_classes, dim, 60.0, seed)
    embedding[::3], weight[::4] = 0.0, 0.0
    return embedding, weight


def nothing_near(num_rows: int, num_classes: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """All cosines below 0 but that of a zero row."""
    embedding, weight = geometry.random(num_rows, num_classes, dim, seed)
    away = embedding.mean(dim=0)
    embedding, weight = embedding + 4 * away / away.norm(), weight - 3 * away / away.norm()
    weight[0] = 0.0
    return embedding, weight


def with_odd_ones(num_rows: int, num_classes: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """A few samples that lie nowhere near a class."""
    embedding, weight = geometry.planted(num_rows, num_classes, dim, 40.0, seed)
    embedding[::16] = geometry.random(num_rows, num_classes, dim, seed + 1)[0][::16]
    return embedding, weight


CASES = {
    "random": geometry.random(48, 1000, 128, 1),
    "random, d = 2048": geometry.random(12, 600, 2048, 2),
    "random, C = 20000": geometry.random(8, 20000, 64, 3),
    "two classes, two dimensions": geometry.random(64, 2, 2, 4),
    "four classes, three dimensions": geometry.random(64, 4, 3, 5),
    "equiangular": etf(48, 100, 128, 6),
    **{f"planted {deg} deg": geometry.planted(48, 400, 96, float(deg), deg) for deg in (5, 20, 40, 60, 85)},
    "planted, C = 20000": geometry.planted(8, 20000, 64, 40.0, 7),
    "offset": offset(48, 300, 64, 8),
    "mild clusters": geometry.clustered(48, 500, 128, 9, cosine=0.5),
    "tight clusters": geometry.clustered(48, 500, 128, 10),
    "large tight clusters": geometry.clustered(48, 500, 128, 11, size=50),
    "duplicated": duplicated(48, 200, 64, 12),
    "a zero row is nearest": nothing_near(64, 3, 2, 14),
    "a zero row is nearest, C = 50": nothing_near(64, 50, 16, 15),
    "odd ones": with_odd_ones(64, 1000, 128, 16),
    "zero rows": with_zeros(48, 200, 64, 13),
}
every_case = pytest.mark.parametrize("name", CASES)


@pytest.fixture(autouse=True)
def _always_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ls.GRID_WORK, "cpu", 0)


def assert_exact(embedding: Tensor, weight: Tensor, kappa: Tensor) -> None:
    energies = reference.ls_energies(embedding.double().numpy(), weight.double().numpy(), reference.grid())
    ranked = np.sort(energies, axis=0)
    clear = ranked[1] - ranked[0] > 1e-6
    index = [int((value == GRID).nonzero()) for value in kappa.float()]
    assert (np.array(index) == energies.argmin(axis=0))[clear].all()
    # What is not clear must at least be as good.
    assert (energies[index, np.arange(len(index))] - ranked[0] <= 1e-6).all()


@every_case
@pytest.mark.parametrize("start", STARTS)
def test_the_argmin_is_that_of_the_float64_grid_from_any_start(name: str, start: float) -> None:
    embedding, weight = CASES[name]
    assert_exact(embedding, weight, functional.ls_kappa(embedding, weight, start=start))


@every_case
@pytest.mark.parametrize("start", STARTS)
def test_a_device_that_is_looked_at_once_gives_the_same(
    name: str, start: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding, weight = CASES[name]
    expected = functional.ls_kappa(embedding, weight)
    monkeypatch.setattr(certified, "READ_FREELY", ())
    assert torch.equal(functional.ls_kappa(embedding, weight, start=start), expected)


def test_long_sums_are_added_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding, weight = geometry.planted(24, 1000, 64, 40.0, seed=3)
    scan, kappa = Scan.of(embedding, weight, chunk=400), functional.kappa_grid()[6:12].unsqueeze(1)
    expected, _ = scan.evaluate(kappa)
    monkeypatch.setattr(softmax, "LONGEST_SUM", 150)
    found, _ = scan.evaluate(kappa)
    assert not torch.equal(found.rest_mean, expected.rest_mean), "added in another order"
    torch.testing.assert_close(found.rest_mean, expected.rest_mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.energy, expected.energy, rtol=0, atol=1e-6)


def test_few_unsettled_samples_are_evaluated_everywhere_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding, weight = CASES["odd ones"]
    start = functional.ls_kappa(embedding, weight).median().item()
    monkeypatch.setattr(certified, "READ_FREELY", ())
    found = functional.ls_kappa(embedding, weight, start=start, return_info=True)
    num_rows, rest = len(embedding), found.evaluations - 3  # of a sample, after the first evaluation
    assert found.open_pairs == 20 * 4
    assert rest * num_rows == pytest.approx(20 * 4, abs=2)  # a comparison in float64 counts too
    assert found.softmax is not None
    again, _ = Scan.of(embedding, weight).evaluate(found.kappa.unsqueeze(0))
    torch.testing.assert_close(found.softmax.energy, again.energy, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.softmax.rest_mean, again.rest_mean, rtol=1e-4, atol=1e-6)


@every_case
@pytest.mark.parametrize("kind", ["bfloat16", "tf32"])
def test_inputs_of_low_precision_are_taken_as_they_are(name: str, kind: str) -> None:
    embedding, weight = CASES[name]
    if kind == "bfloat16":
        embedding, weight = embedding.bfloat16(), weight.bfloat16()
    else:  # ten bits of mantissa
        embedding, weight = (
            (rows.view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32) for rows in (embedding, weight)
        )
    assert_exact(embedding, weight, functional.ls_kappa(embedding, weight))


@pytest.mark.slow
@every_case
def test_start_chunk_batch_and_route_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding, weight = CASES[name]
    expected = functional.ls_kappa(embedding, weight)
    for start in STARTS:
        assert torch.equal(functional.ls_kappa(embedding, weight, start=start), expected)
    for chunk in (1 + len(weight) // 7, len(weight) - 1, len(weight)):
        assert torch.equal(functional.ls_kappa(embedding, weight, chunk=chunk), expected)
    monkeypatch.setitem(blocks.STORE_BYTES, "cpu", 0)
    assert torch.equal(functional.ls_kappa(embedding, weight, chunk=64), expected)
    parts = [functional.ls_kappa(part, weight) for part in embedding.split(5)]
    assert torch.equal(torch.cat(parts), expected)
    monkeypatch.setitem(ls.GRID_WORK, "cpu", 1 << 62)
    assert torch.equal(functional.ls_kappa(embedding, weight), expected)


@pytest.fixture
def float32_precision() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    for module in (torch.backends, torch.backends.mkldnn.matmul, torch.backends.cuda.matmul):
        module.fp32_precision = "none"


def legacy(precision: str) -> Callable[[], None]:
    return lambda: torch.set_float32_matmul_precision(precision)


def setting(module: object, precision: str) -> Callable[[], None]:
    return lambda: setattr(module, "fp32_precision", precision)


EVERYWHERE, CPU, CUDA = torch.backends, torch.backends.mkldnn.matmul, torch.backends.cuda.matmul
# What a program may set, in this order, and what float32 products then are on a CPU and on CUDA (which has no bf16).
PRECISIONS: dict[str, tuple[list[Callable[[], None]], str, str]] = {
    "untouched": ([], "none", "none"),
    "highest": ([legacy("highest")], "ieee", "ieee"),
    "high": ([legacy("high")], "tf32", "tf32"),
    "medium": ([legacy("medium")], "bf16", "tf32"),
    "all ieee": ([setting(EVERYWHERE, "ieee")], "ieee", "ieee"),
    "all tf32": ([setting(EVERYWHERE, "tf32")], "tf32", "tf32"),
    "all bf16": ([setting(EVERYWHERE, "bf16")], "bf16", "none"),
    "cpu tf32": ([setting(CPU, "tf32")], "tf32", "none"),
    "cpu bf16": ([setting(CPU, "bf16")], "bf16", "none"),
    "cuda tf32": ([setting(CUDA, "tf32")], "none", "tf32"),
    "cuda tf32 of the older kind": ([lambda: setattr(CUDA, "allow_tf32", True)], "none", "tf32"),
    "all but cuda": ([setting(EVERYWHERE, "tf32"), setting(CUDA, "ieee")], "tf32", "ieee"),
    "all but cpu": ([setting(EVERYWHERE, "tf32"), setting(CPU, "ieee")], "ieee", "tf32"),
    "first legacy": ([legacy("high"), setting(CPU, "bf16")], "bf16", "tf32"),
    "last legacy": ([setting(EVERYWHERE, "tf32"), legacy("highest")], "ieee", "ieee"),
}


@pytest.mark.usefixtures("float32_precision")
@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("route", ["certified", "grid"])
def test_precision_of_products_is_read_however_it_was_set(
    name: str, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where products are short of float32, more candidates are compared again in float64, and kappa stays exact."""
    calls, on_cpu, on_cuda = PRECISIONS[name]
    for call in calls:
        call()
    monkeypatch.setitem(ls.GRID_WORK, "cpu", 0 if route == "certified" else 1 << 62)
    embedding, weight = CASES["random"]
    assert_exact(embedding, weight, functional.ls_kappa(embedding, weight))
    assert rounding.matmul_precision(torch.device("cpu")) == on_cpu
    assert rounding.matmul_precision(torch.device("cuda")) == on_cuda
    assert {on_cpu, on_cuda} <= set(rounding.ROUNDING)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(
    num_rows=st.integers(1, 12),
    num_classes=st.integers(2, 60),
    dim=st.integers(1, 40),
    noise=st.sampled_from([0.0, 0.01, 0.3, 1.0, 3.0]),
    repeats=st.integers(1, 4),
    seed=st.integers(0, 10**6),
    chunk=st.sampled_from([1, 7, None]),
)
def test_generated_problems(
    num_rows: int, num_classes: int, dim: int, noise: float, repeats: int, seed: int, chunk: int | None
) -> None:
    embedding, weight = geometry.random(num_rows, num_classes, dim, seed)
    weight = weight[torch.arange(num_classes) // repeats] + noise * 0.1 * weight
    embedding = weight[torch.arange(num_rows) % num_classes] + noise * embedding
    assert_exact(embedding, weight, functional.ls_kappa(embedding, weight, chunk=chunk))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("embedding_scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("weight_scale", [1e-30, 1.0, 1e30])
def test_scale_does_not_matter(dtype: torch.dtype, embedding_scale: float, weight_scale: float) -> None:
    embedding, weight = (rows.to(dtype) for rows in CASES["planted 40 deg"])
    expected = functional.ls_kappa(embedding, weight)
    scaled = functional.ls_kappa(embedding_scale * embedding, weight_scale * weight)
    assert (scaled == expected).float().mean() > 0.97  # scaling rounds anew
    rows = weight.clone()
    rows[::2] *= weight_scale
    mixed = functional.ls_kappa(embedding, rows)
    assert (mixed == expected).float().mean() > 0.97


def test_the_largest_and_the_smallest_numbers_stay_finite() -> None:
    embedding, weight = (rows.clone() for rows in CASES["planted 40 deg"])
    embedding[0], embedding[1], weight[0], weight[1] = 3e38, 1e-45, 3e38, 1e-45
    assert functional.ls_kappa(embedding, weight).isfinite().all()


@every_case
@pytest.mark.parametrize("labelled", [False, True])
def test_bounds_lie_below_the_energies(name: str, labelled: bool) -> None:
    embedding, weight = (rows.double() for rows in CASES[name])
    scan = Scan.of(embedding, weight)
    if labelled:
        has_label = torch.arange(len(embedding)) % 5 > 0
        scan = scan.without((torch.arange(len(embedding)) % len(weight)).where(has_label, -1), has_label)
    grid, last = GRID.double(), len(GRID) - 1
    state, beyond = scan.evaluate(grid.unsqueeze(1), beyond=grid[last].expand(len(embedding)))
    alive = embedding.abs().amax(dim=1) > 0  # of a zero row all energies are equal
    everything = reference.ls_energies(embedding.numpy(), weight.numpy(), grid.tolist())
    torch.testing.assert_close(state.energy.numpy(), everything, rtol=1e-9, atol=1e-12)
    assert beyond is not None
    nearest = scan.target.nearest(state.nearest[0])
    for k in range(len(grid)):
        below = bound_below(scan.inner(state, k))
        assert (below <= state.energy[: k + 1] + 1e-12)[:, alive].all()
        share = others(scan.target, grid[k], state.nearest[0], state.mass[k], state.log_odds[k])
        assert (bound_above(nearest, share) <= state.energy[k:] + 1e-12)[:, alive].all()
    rows = torch.arange(len(embedding))
    bounds = SpanBounds(scan, grid, rows, state.nearest[0], range(len(grid)))
    wanted = torch.ones_like(state.energy, dtype=torch.bool)
    for k in (10, 16):
        bound = bounds.add(scan.mean(state, k), wanted)
        assert (bound <= state.energy + 1e-12)[:, alive].all()
        if k == 10:  # tight at the average that it projects on
            torch.testing.assert_close(bound[k, alive], state.energy[k, alive], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "limit"),
    [("planted 40 deg", 4.2), ("random", 4.8), ("tight clusters", 8.0), ("large tight clusters", 8.0)],
)
def test_few_evaluations_from_the_start_of_another_batch(name: str, limit: float) -> None:
    embedding, weight = CASES[name]
    first = functional.ls_kappa(embedding[:24], weight, return_info=True)
    second = functional.ls_kappa(embedding[24:], weight, start=first.kappa.median().item(), return_info=True)
    assert second.evaluations <= limit
    assert second.softmax is not None


@pytest.mark.slow
@pytest.mark.parametrize("estimate", [functional.ls_kappa, functional.ml_kappa])
def test_estimates_compile_to_one_graph(estimate: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.compiler.reset()
    embedding, weight = geometry.planted(8, 30, 16, 40.0, seed=1)
    compiled = torch.compile(estimate, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(embedding, weight), estimate(embedding, weight))


def test_edges_are_counted() -> None:
    embedding, weight = CASES["zero rows"]
    found = functional.ls_kappa(embedding, weight, return_info=True)
    at_edges = int((found.kappa == GRID[0]).sum()), int((found.kappa == GRID[-1]).sum())
    assert found.edges == at_edges
    assert found.edges[0] >= 16  # the zero rows
    narrow = functional.ls_kappa(embedding, weight, functional.kappa_grid(-2, 1, 9), return_info=True)
    assert narrow.edges[1] > 16


def test_a_stale_start_costs_time_only() -> None:
    embedding, weight = CASES["random"]
    start = functional.ls_kappa(*CASES["planted 40 deg"]).median().item()
    stale = functional.ls_kappa(embedding, weight, start=start, return_info=True)
    fresh = functional.ls_kappa(embedding, weight, start=40.0, return_info=True)
    assert torch.equal(stale.kappa, fresh.kappa)
    assert stale.evaluations > fresh.evaluations


def test_one_uncertified_step_would_be_wrong_on_clusters() -> None:
    """The case that the certificate is there for: a local minimum that is not the least."""
    embedding, weight = CASES["large tight clusters"]
    energies = reference.ls_energies(embedding.numpy(), weight.numpy(), reference.grid())
    inner = energies[1:-1]
    minima = ((inner < energies[:-2]) & (inner < energies[2:])).sum(axis=0)
    assert (minima > 1).mean() > 0.5


def test_small_problems_take_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    small, large = Scan.of(torch.randn(8, 16), torch.randn(10, 16)), Scan.of(*CASES["random"])
    assert ls.ls_route(small, GRID) == "plain"
    assert ls.ls_route(large, GRID) == "certified"
    assert ls.ls_route(large, GRID[:2]) == "whole"
    assert ls.ls_route(large, functional.kappa_grid(num=200)) == "whole"
    assert functional.ls_kappa(torch.randn(8, 16), torch.randn(10, 16), return_info=True).evaluations >= 20
    assert torch.equal(functional.ls_kappa(*CASES["random"], GRID[:2]), torch.full((48,), float(GRID[1])))


def test_no_tensor_of_all_cosines_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(blocks.STORE_BYTES, "cpu", 0)
    embedding, weight = geometry.random(64, 5000, 16, 3)
    with tensor_sizes() as sizes:
        functional.ls_kappa(embedding, weight, chunk=128)
    assert max(sizes) <= max(weight.numel(), 4 * 64 * 128)
    assert max(sizes) < 64 * 5000


@pytest.mark.parametrize("grid", [torch.tensor([5.0, 10.0]), torch.linspace(1, 50, 70)], ids=["short", "fine"])
def test_no_samples_are_no_division(grid: Tensor) -> None:
    assert functional.ls_kappa(torch.zeros(0, 8), torch.randn(300_000, 8), grid).shape == (0,)
