"""Epoch statistics of kappa against numpy."""

import numpy as np
import pytest
import torch

from cosify.functional import kappa_grid
from cosify.heads import kappa_statistics
from cosify.training import KappaStatistics

CPU = torch.device("cpu")


def collect(*batches: torch.Tensor) -> KappaStatistics:
    statistics = KappaStatistics(CPU)
    for batch in batches:
        statistics.update(batch)
    return statistics


def test_values_of_the_grid_are_counted_exactly() -> None:
    grid = kappa_grid()
    index = torch.randint(20, (7, 33), generator=torch.Generator().manual_seed(0))
    summary = collect(*grid[index]).summary()
    assert summary is not None
    values = grid[index].flatten().double().numpy()
    assert summary.mean == pytest.approx(values.mean(), rel=1e-12)
    for share, found in ((0.1, summary.p10), (0.5, summary.median), (0.9, summary.p90)):
        assert found == np.quantile(values, share, method="inverted_cdf")
    assert summary.histogram == tuple(np.bincount(index.flatten().numpy(), minlength=20))
    assert summary.low_edge == pytest.approx(float((index == 0).double().mean()))
    assert summary.high_edge == pytest.approx(float((index == 19).double().mean()))


def test_kappas_off_the_grid_use_the_means_of_the_steps() -> None:
    steps = [2.0, 9.0, 4.0, 400.0, 5.0]
    summary = collect(*(torch.full((8,), kappa) for kappa in steps)).summary()
    assert summary is not None
    assert summary.mean == pytest.approx(np.mean(steps))
    assert (summary.p10, summary.median, summary.p90) == (2.0, 5.0, 400.0)
    assert (summary.low_edge, summary.high_edge) == (0.0, 0.2)
    assert sum(summary.histogram) == 40
    assert summary.histogram[19] == 8


def test_many_steps_are_few_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kappa_statistics, "MAX_PIECES", 3)
    statistics = collect(*torch.arange(1.0, 12.0).unsqueeze(1))
    assert len(statistics._step_means) <= 3
    assert statistics.latest() == 11.0
    again = KappaStatistics(CPU)
    again.load_state(statistics.state(lambda values: values, 1))
    for each in (statistics, again):
        summary = each.summary()
        assert summary is not None
        assert (summary.p10, summary.median, summary.p90) == (2.0, 6.0, 10.0)


def test_edges_include_what_lies_beyond() -> None:
    summary = collect(torch.tensor([0.01, 0.13533528, 0.2, 148.41316, 1e6])).summary()
    assert summary is not None
    assert (summary.low_edge, summary.high_edge) == (0.4, 0.4)


def test_ranks_are_added_up() -> None:
    grid = kappa_grid()
    ranks = [collect(grid[[3, 3, 4]]), collect(grid[[9, 9, 9]])]
    whole = collect(grid[[3, 3, 4, 9, 9, 9]]).summary()
    # Each call of all_sum on rank 0 is answered with the sum of what both ranks hold.
    others = [ranks[1]._sums, ranks[1]._counts]
    summed = ranks[0].summary(lambda values: values + others.pop(0), world_size=2)
    assert summed == whole
    assert not others


@pytest.mark.parametrize("off_grid", [0.0, 0.5])
def test_all_ranks_add_up_the_same_tensors(off_grid: float) -> None:
    grid = kappa_grid()
    batches = [grid[[3, 3, 4]], grid[[9]] + off_grid]
    unequal = [batches, batches[:1], []] if off_grid == 0 else [batches, [grid[[2]], grid[[7]]]]  # then as many steps
    ranks = [collect(*each) for each in unequal]
    reduced: list[list[torch.Tensor]] = [[] for _ in ranks]
    for rank, statistics in enumerate(ranks):

        def all_sum(values: torch.Tensor, rank: int = rank) -> torch.Tensor:
            reduced[rank].append(values)
            # The first sum is that of both, which decides what follows.
            return sum((each._sums for each in ranks), torch.zeros(5)) if len(reduced[rank]) == 1 else values

        assert statistics.summary(all_sum, len(ranks)) is not None
    shapes = {tuple(tuple(values.shape) for values in each) for each in reduced}
    assert shapes == {((5,), (20,)) if off_grid == 0 else ((5,), (20,), (2,))}


def test_nothing_to_report() -> None:
    assert collect().summary() is None
    assert collect().latest() is None
    assert collect(torch.tensor([1.0, 3.0])).latest() == 2.0


def test_the_callers_tensor_is_untouched_and_no_graph_is_kept() -> None:
    kappa = torch.tensor([2.0, 3.0], requires_grad=True)
    statistics = collect(kappa)
    assert kappa.tolist() == [2.0, 3.0]
    assert not statistics._step_means[0].requires_grad
