"""The certified local search for Eq. (11): few candidates are evaluated, the others are proved to be worse.

1. Three neighbours are evaluated in one matrix product, then the walk goes downhill until the best has two worse
   neighbours.
2. Two bounds that come with the evaluations rule out all that lies left and right of the walk, for most trained
   features (`bound_below`, `bound_above`).
3. What they leave open is bounded by projections (`SpanBounds`), each at the price of one evaluation.
4. What is still open is evaluated, the most promising first.

The answer does not depend on the start.  That the energy has one minimum is not assumed: with tight clusters of
classes it has two, one that tells clusters apart and one that tells their members apart.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cosify.functional.search.blocks import KAPPAS_AT_ONCE
from cosify.functional.search.bounds import SpanBounds, bound_above, bound_below
from cosify.functional.search.softmax import Scan, SoftmaxState

# Directions of SpanBounds besides x.  A second one halves the evaluations on clustered classes, a third saves nothing.
MOST_AVERAGES = 2
# Candidates below the walk that are projected at first.  Those further down mostly follow from the lowest of these.
REACH = 3


@dataclass
class Evaluated:
    """The state of a search.

    Attributes:
        energy: [K, B], Eq. (10); infinite at candidates that were not evaluated.
        index: [B], the best candidate.
        best: the softmax there, n = 1.
        products: [.., C] x [C, d] matrix products, counted in samples.
        open_pairs: (sample, candidate) that had to be evaluated because no bound ruled them out.
    """

    energy: Tensor
    index: Tensor
    best: SoftmaxState
    products: int
    open_pairs: int = 0

    def enter(self, rows: Tensor, index: Tensor, state: SoftmaxState) -> None:
        """Enter the evaluation of one candidate of each of `rows`."""
        energy = state.energy[0]
        better = energy < self.best.energy[0, rows]
        self.energy[index, rows] = energy
        self.index[rows] = torch.where(better, index, self.index[rows])
        self.best.put(rows, state, better)
        self.products += len(rows)


def search_certified(scan: Scan, grid: Tensor, start: Tensor, rounding: Tensor) -> Evaluated:
    """Evaluate every candidate whose energy may be the least, up to rounding.

    Args:
        scan: samples and classes.
        grid: [K], at least three, increasing.
        start: index of the candidate to begin at, [1] or [B].
        rounding: [K], of an energy at each candidate; what is left out is worse than the best by more.
    """
    num_rows, last = len(scan.blocks.embedding), len(grid) - 1
    low = (start - 1).clamp(0, len(grid) - KAPPAS_AT_ONCE).expand(num_rows).clone()
    high = low + (KAPPAS_AT_ONCE - 1)
    window = low + torch.arange(KAPPAS_AT_ONCE, device=low.device).unsqueeze(1)
    state, others = scan.evaluate(grid[window], beyond=grid[(high + 1).clamp_max(last)])
    assert others is not None
    energy = state.energy.new_full((len(grid), num_rows), torch.inf).scatter_(0, window, state.energy)
    position = state.energy.argmin(dim=0)
    known = Evaluated(energy, low + position, state.pick(position), KAPPAS_AT_ONCE * num_rows)
    inner = scan.inner(state, 0)  # at `low`; `others` belongs to a candidate not beyond `high + 1`
    while True:
        up = (known.index == high) & (high < last)
        rows = scan.shards.agreed(up | ((known.index == low) & (low > 0))).nonzero().squeeze(1)
        if len(rows) == 0:
            break
        upwards = up[rows]
        index = torch.where(upwards, high[rows] + 1, low[rows] - 1)
        state, beyond = scan.evaluate(grid[index].unsqueeze(0), rows, grid[(index + 1).clamp_max(last)])
        assert beyond is not None
        known.enter(rows, index, state)
        high[rows], others[rows] = torch.where(upwards, index, high[rows]), torch.where(upwards, beyond, others[rows])
        new_inner = scan.inner(state, 0, rows)
        low[rows], inner[rows] = torch.where(upwards, low[rows], index), torch.where(upwards, inner[rows], new_inner)

    limit = known.best.energy[0] + rounding[known.index]
    limit_above = known.best.energy[0] + rounding[-1]
    nearest = scan.target.nearest(known.best.nearest[0])
    below = (low > 0) & (bound_below(inner) < limit)
    above = (high < last) & (bound_above(nearest, others) < limit_above)
    candidate = torch.arange(len(grid), device=grid.device).unsqueeze(1)
    is_open = scan.shards.agreed((below & (candidate < low)) | (above & (candidate > high)))
    flags = torch.cat([is_open.any(dim=0), is_open.any(dim=1)]).tolist()  # one look for both
    if any(flags):
        rows = torch.tensor([row for row, flag in enumerate(flags[:num_rows]) if flag], device=grid.device)
        candidates = [k for k, flag in enumerate(flags[num_rows:]) if flag]
        near = candidate >= low[rows] - (REACH if grid.device.type == "cpu" else len(grid))  # elsewhere all, at once
        bounds = SpanBounds(scan, grid, rows, known.best.nearest[0, rows], candidates)
        _close(scan, grid, known, rows, is_open[:, rows], near, bounds, rounding)
    return known


def _close(
    scan: Scan,
    grid: Tensor,
    known: Evaluated,
    rows: Tensor,
    is_open: Tensor,
    near: Tensor,
    bounds: SpanBounds,
    rounding: Tensor,
) -> None:
    """Rule out or evaluate the candidates `is_open` [K, n] of the samples `rows` [n], looking at those `near` first."""
    bound = bounds.add(scan.mean(known.best, 0)[rows], is_open & near)
    known.products += len(rows)
    is_open, left = _still_open(scan, known, rows, is_open, bound, rounding)
    if grid.device.type == "cpu" and bool((far := is_open & ~near).any()):
        bound = bounds.extend(far)
        known.products += len(rows)
        is_open, left = _still_open(scan, known, rows, is_open, bound, rounding)
    average = None
    while len(kept := left.nonzero().squeeze(1)) > 0:
        rows, is_open, bound = rows[kept], is_open[:, kept], bound[:, kept]
        bounds.keep(kept)
        if average is not None and bounds.num_averages < MOST_AVERAGES:
            bound = bounds.add(average[kept], is_open)
            known.products += len(rows)
        else:
            index = bound.masked_fill(~is_open, torch.inf).argmin(dim=0)
            state, _ = scan.evaluate(grid[index].unsqueeze(0), rows)
            average = scan.mean(state, 0, rows)
            known.enter(rows, index, state)
            known.open_pairs += len(rows)
            is_open[index, torch.arange(len(rows), device=rows.device)] = False
        is_open, left = _still_open(scan, known, rows, is_open, bound, rounding)


def _still_open(
    scan: Scan, known: Evaluated, rows: Tensor, is_open: Tensor, bound: Tensor, rounding: Tensor
) -> tuple[Tensor, Tensor]:
    """Return which candidates [K, n] of `rows` no bound rules out, and which of the rows [n] have any."""
    slack = torch.maximum(rounding.unsqueeze(1), rounding[known.index[rows]])
    is_open = scan.shards.agreed(is_open & (bound < known.best.energy[0, rows] + slack))
    return is_open, is_open.any(dim=0)
