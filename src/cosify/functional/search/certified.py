"""The certified local search for Eq. (11): few candidates are evaluated, the others are proved to be worse.

1. Three neighbours are evaluated in one matrix product, then the walk goes downhill until the best has two worse
   neighbours.
2. Two bounds that come with the evaluations rule out all that lies left and right of the walk, for most trained
   features (`bound_below`, `bound_above`).
3. What they leave open is bounded by projections (`SpanBounds`), each at the price of one evaluation.
4. What is still open is evaluated, the most promising first.

On an accelerator, each step waits for the one before.  Few samples that the first evaluation leaves unsettled are
evaluated at all candidates instead, at once.

The answer does not depend on the start.  That the energy has one minimum is not assumed: with tight clusters of
classes it has two, one that tells clusters apart and one that tells their members apart.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cosify.functional.fusion import fused
from cosify.functional.search.blocks import WINDOW
from cosify.functional.search.bounds import SpanBounds, bound_above, bound_below
from cosify.functional.search.softmax import Scan, SoftmaxState

# Directions of SpanBounds besides x.  A second one halves the evaluations on clustered classes, a third saves nothing.
MOST_AVERAGES = 2
# Devices whose values the host reads without waiting.
READ_FREELY: tuple[str, ...] = ("cpu",)
# Candidates below the walk that are projected at first.  Those further down mostly follow from the lowest of these.
REACH = 3


@dataclass
class Search:
    """How far a search has come.  The candidates of a sample from `low` to `high` are those of its walk.

    Attributes:
        scan: samples and classes.
        grid: [K].
        rounding: [K], of an energy at each candidate; what is left out is worse than the best by more.
        energy: [K, B], Eq. (10); infinite at candidates that were not evaluated.
        index: [B], the best candidate.
        best: the softmax there, n = 1.
        low: [B], number of the walk's first candidate.
        high: [B], number of its last one.
        inner: [B], x . m at `low`.
        others: [B], 1 - p of the nearest class, at high + 1 or at the last candidate of all.
        products: [.., C] x [C, d] matrix products, counted in samples.
        open_pairs: (sample, candidate) evaluated after the walk.
    """

    scan: Scan
    grid: Tensor
    rounding: Tensor
    energy: Tensor
    index: Tensor
    best: SoftmaxState
    low: Tensor
    high: Tensor
    inner: Tensor
    others: Tensor
    products: int
    open_pairs: int = 0

    def goes_on(self) -> tuple[Tensor, Tensor]:
        """Return which samples walk on, because an end is their best, and which of them upwards."""
        up = (self.index == self.high) & (self.high < len(self.energy) - 1)
        return up | ((self.index == self.low) & (self.low > 0)), up

    def left_open(self) -> Tensor:
        """Return which candidates, [K, B], the bounds at both ends of the walk do not rule out."""
        limit = self.best.energy[0] + self.rounding[self.index]
        limit_above = self.best.energy[0] + self.rounding[-1]
        nearest = self.scan.target.nearest(self.best.nearest[0])
        candidate = torch.arange(len(self.rounding), device=self.rounding.device).unsqueeze(1)
        below = (candidate < self.low) & (bound_below(self.inner) < limit)
        above = (candidate > self.high) & (bound_above(nearest, self.others) < limit_above)
        return below | above

    @fused
    def look(self) -> tuple[Tensor, Tensor]:
        """Return which samples walk on and which are not settled yet, [2, B], and which of them walk upwards, [B]."""
        goes_on, up = self.goes_on()
        return torch.stack([goes_on, goes_on | self.left_open().any(dim=0)]), up

    def step(self, rows: Tensor, upwards: Tensor) -> None:
        """Evaluate the next candidate of each of `rows` [n], the mask `upwards` [n] says on which side."""
        index = torch.where(upwards, self.high[rows] + 1, self.low[rows] - 1)
        beyond = self.grid[(index + 1).clamp_max(len(self.grid) - 1)]
        state, others = self.scan.evaluate(self.grid[index].unsqueeze(0), rows, beyond)
        assert others is not None
        self._enter_step(rows, index, upwards, state, others)

    @fused
    def _enter_step(self, rows: Tensor, index: Tensor, upwards: Tensor, state: SoftmaxState, others: Tensor) -> None:
        self.enter(rows, index, state)
        inner = self.scan.inner(state, 0, rows)
        self.high[rows], self.others[rows] = (
            torch.where(upwards, new, old[rows]) for new, old in ((index, self.high), (others, self.others))
        )
        self.low[rows], self.inner[rows] = (
            torch.where(upwards, old[rows], new) for new, old in ((index, self.low), (inner, self.inner))
        )

    def enter(self, rows: Tensor, index: Tensor, state: SoftmaxState) -> None:
        """Enter the evaluation of one candidate of each of `rows`."""
        energy = state.energy[0]
        better = energy < self.best.energy[0, rows]
        self.energy[index, rows] = energy
        self.index[rows] = torch.where(better, index, self.index[rows])
        self.best.put(rows, state, better)
        self.products += len(rows)

    @fused
    def enter_all(self, rows: Tensor, state: SoftmaxState) -> None:
        """Enter the evaluation of all candidates of `rows`."""
        index = state.energy.argmin(dim=0)
        self.energy[:, rows], self.index[rows] = state.energy, index
        self.best.put(rows, state.pick(index))
        self.products += state.energy.numel()
        self.open_pairs += state.energy.numel()

    def close(self, rows: Tensor, is_open: Tensor, near: Tensor, bounds: SpanBounds) -> None:
        """Rule out or evaluate the candidates `is_open` [K, n] of the samples `rows` [n], those `near` first."""
        bound = bounds.add(self.scan.mean(self.best, 0)[rows], is_open & near)
        self.products += len(rows)
        is_open, left = self._still_open(rows, is_open, bound)
        if self.grid.device.type in READ_FREELY and bool((far := is_open & ~near).any()):
            bound = bounds.extend(far)
            self.products += len(rows)
            is_open, left = self._still_open(rows, is_open, bound)
        average = None
        while len(kept := left.nonzero().squeeze(1)) > 0:
            rows, is_open, bound = rows[kept], is_open[:, kept], bound[:, kept]
            bounds.keep(kept)
            if average is not None and bounds.num_averages < MOST_AVERAGES:
                bound = bounds.add(average[kept], is_open)
                self.products += len(rows)
            else:
                index = bound.masked_fill(~is_open, torch.inf).argmin(dim=0)
                state, _ = self.scan.evaluate(self.grid[index].unsqueeze(0), rows)
                average = self.scan.mean(state, 0, rows)
                self.enter(rows, index, state)
                self.open_pairs += len(rows)
                is_open[index, torch.arange(len(rows), device=rows.device)] = False
            is_open, left = self._still_open(rows, is_open, bound)

    def _still_open(self, rows: Tensor, is_open: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
        """Return which candidates [K, n] of `rows` no bound rules out, and which of the rows [n] have any."""
        slack = torch.maximum(self.rounding.unsqueeze(1), self.rounding[self.index[rows]])
        is_open = self.scan.shards.agreed(is_open & (bound < self.best.energy[0, rows] + slack))
        return is_open, is_open.any(dim=0)


def search_certified(scan: Scan, grid: Tensor, start: Tensor, rounding: Tensor) -> Search:
    """Evaluate every candidate whose energy may be the least, up to rounding.

    Args:
        scan: samples and classes.
        grid: [K], at least three, increasing.
        start: index of the candidate to begin at, [1].
        rounding: [K], of an energy at each candidate; what is left out is worse than the best by more.
    """
    window, kappa, beyond = _window(grid, start, len(scan.blocks.embedding))
    state, others = scan.evaluate(kappa, beyond=beyond)
    assert others is not None
    search = _begun(scan, grid, rounding, window, state, others)
    if grid.device.type in READ_FREELY:
        goes_on, up = search.goes_on()
        rows = scan.shards.agreed(goes_on).nonzero().squeeze(1)
    else:
        flags, up = search.look()
        walking, few = _numbers(*scan.shards.agreed(flags))
        if len(few) * len(grid) <= window.numel():  # as much work, and memory, as the first evaluation
            if few:
                rows = torch.tensor(few, device=grid.device)
                search.enter_all(rows, scan.evaluate(grid.unsqueeze(1), rows)[0])
            return search
        rows = torch.tensor(walking, dtype=torch.long, device=grid.device)
    while len(rows) > 0:
        search.step(rows, up[rows])
        goes_on, up = search.goes_on()
        rows = scan.shards.agreed(goes_on).nonzero().squeeze(1)
    is_open = scan.shards.agreed(search.left_open())
    open_rows, candidates = _numbers(is_open.any(dim=0), is_open.any(dim=1))
    if open_rows:
        rows = torch.tensor(open_rows, device=grid.device)
        candidate = torch.arange(len(grid), device=grid.device).unsqueeze(1)
        reach = REACH if grid.device.type in READ_FREELY else len(grid)  # elsewhere all, at once
        near = candidate >= search.low[rows] - reach
        bounds = SpanBounds(scan, grid, rows, search.best.nearest[0, rows], candidates)
        search.close(rows, is_open[:, rows], near, bounds)
    return search


@fused
def _window(grid: Tensor, start: Tensor, num_rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return three neighbours around `start`, [3, B], their kappas, and the kappa beyond them, [B]."""
    low = (start - 1).clamp(0, len(grid) - WINDOW).expand(num_rows)
    window = low + torch.arange(WINDOW, device=low.device).unsqueeze(1)
    return window, grid[window], grid[(low + WINDOW).clamp_max(len(grid) - 1)]


@fused
def _begun(scan: Scan, grid: Tensor, rounding: Tensor, window: Tensor, state: SoftmaxState, others: Tensor) -> Search:
    """Return a search that has evaluated the neighbours `window`."""
    energy = state.energy.new_full((len(grid), window.shape[1]), torch.inf).scatter_(0, window, state.energy)
    position = state.energy.argmin(dim=0)
    index, inner = window[0] + position, scan.inner(state, 0)
    ends = window[0].clone(), window[-1].clone()
    return Search(scan, grid, rounding, energy, index, state.pick(position), *ends, inner, others, window.numel())


def _numbers(*masks: Tensor) -> list[list[int]]:
    """Return the numbers of those that are true in each mask, after one look at all of them."""
    flags = iter(torch.cat(masks).tolist())
    return [[number for number in range(len(mask)) if next(flags)] for mask in masks]
