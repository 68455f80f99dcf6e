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
class Evaluated:
    """The state of a search.

    Attributes:
        energy: [K, B], Eq. (10); infinite at candidates that were not evaluated.
        index: [B], the best candidate.
        best: the softmax there, n = 1.
        products: [.., C] x [C, d] matrix products, counted in samples.
        open_pairs: (sample, candidate) evaluated after the walk.
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

    @fused
    def enter_all(self, rows: Tensor, state: SoftmaxState) -> None:
        """Enter the evaluation of all candidates of `rows`."""
        index = state.energy.argmin(dim=0)
        self.energy[:, rows], self.index[rows] = state.energy, index
        self.best.put(rows, state.pick(index))
        self.products += state.energy.numel()
        self.open_pairs += state.energy.numel()


@dataclass
class Walk:
    """Where each sample stands, [B]: the candidates from low to high are evaluated.

    Attributes:
        low: number of the first one.
        high: number of the last one.
        inner: x . m at `low`.
        others: 1 - p of the nearest class, at high + 1 or at the last candidate.
    """

    low: Tensor
    high: Tensor
    inner: Tensor
    others: Tensor

    def goes_on(self, known: Evaluated) -> tuple[Tensor, Tensor]:
        """Return which samples walk on, because an end is their best, and which of them upwards."""
        up = (known.index == self.high) & (self.high < len(known.energy) - 1)
        return up | ((known.index == self.low) & (self.low > 0)), up

    def left_open(self, scan: Scan, known: Evaluated, rounding: Tensor) -> Tensor:
        """Return which candidates, [K, B], the bounds at both ends do not rule out."""
        limit = known.best.energy[0] + rounding[known.index]
        limit_above = known.best.energy[0] + rounding[-1]
        nearest = scan.target.nearest(known.best.nearest[0])
        candidate = torch.arange(len(rounding), device=rounding.device).unsqueeze(1)
        below = (candidate < self.low) & (bound_below(self.inner) < limit)
        above = (candidate > self.high) & (bound_above(nearest, self.others) < limit_above)
        return below | above


def search_certified(scan: Scan, grid: Tensor, start: Tensor, rounding: Tensor) -> Evaluated:
    """Evaluate every candidate whose energy may be the least, up to rounding.

    Args:
        scan: samples and classes.
        grid: [K], at least three, increasing.
        start: index of the candidate to begin at, [1].
        rounding: [K], of an energy at each candidate; what is left out is worse than the best by more.
    """
    known, walk = _begin(scan, grid, start)
    if grid.device.type in READ_FREELY:
        goes_on, up = walk.goes_on(known)
        rows = scan.shards.agreed(goes_on).nonzero().squeeze(1)
    else:
        flags, up = _look(scan, known, walk, rounding)
        walking, few = _numbers(*scan.shards.agreed(flags))
        if len(few) * len(grid) <= WINDOW * len(known.index):  # as much work, and memory, as `_begin`
            if few:
                rows = torch.tensor(few, device=grid.device)
                known.enter_all(rows, scan.evaluate(grid.unsqueeze(1), rows)[0])
            return known
        rows = torch.tensor(walking, dtype=torch.long, device=grid.device)
    while len(rows) > 0:
        _step(scan, grid, known, walk, rows, up[rows])
        goes_on, up = walk.goes_on(known)
        rows = scan.shards.agreed(goes_on).nonzero().squeeze(1)
    is_open = scan.shards.agreed(walk.left_open(scan, known, rounding))
    open_rows, candidates = _numbers(is_open.any(dim=0), is_open.any(dim=1))
    if open_rows:
        rows = torch.tensor(open_rows, device=grid.device)
        candidate = torch.arange(len(grid), device=grid.device).unsqueeze(1)
        reach = REACH if grid.device.type in READ_FREELY else len(grid)  # elsewhere all, at once
        near = candidate >= walk.low[rows] - reach
        bounds = SpanBounds(scan, grid, rows, known.best.nearest[0, rows], candidates)
        _close(scan, grid, known, rows, is_open[:, rows], near, bounds, rounding)
    return known


def _numbers(*masks: Tensor) -> list[list[int]]:
    """Return the numbers of those that are true in each mask, after one look at all of them."""
    flags = iter(torch.cat(masks).tolist())
    return [[number for number in range(len(mask)) if next(flags)] for mask in masks]


def _begin(scan: Scan, grid: Tensor, start: Tensor) -> tuple[Evaluated, Walk]:
    """Evaluate three neighbours around `start`."""
    window, kappa, beyond = _window(grid, start, len(scan.blocks.embedding))
    state, others = scan.evaluate(kappa, beyond=beyond)
    assert others is not None
    return _begun(scan, window, state, others, len(grid))


@fused
def _window(grid: Tensor, start: Tensor, num_rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the neighbours, [3, B], their kappas, and the kappa beyond them, [B]."""
    low = (start - 1).clamp(0, len(grid) - WINDOW).expand(num_rows)
    window = low + torch.arange(WINDOW, device=low.device).unsqueeze(1)
    return window, grid[window], grid[(low + WINDOW).clamp_max(len(grid) - 1)]


@fused
def _begun(
    scan: Scan, window: Tensor, state: SoftmaxState, others: Tensor, num_candidates: int
) -> tuple[Evaluated, Walk]:
    num_rows = window.shape[1]
    energy = state.energy.new_full((num_candidates, num_rows), torch.inf).scatter_(0, window, state.energy)
    position = state.energy.argmin(dim=0)
    known = Evaluated(energy, window[0] + position, state.pick(position), WINDOW * num_rows)
    return known, Walk(window[0].clone(), window[-1].clone(), scan.inner(state, 0), others)


@fused
def _look(scan: Scan, known: Evaluated, walk: Walk, rounding: Tensor) -> tuple[Tensor, Tensor]:
    """Return which samples walk on and which are not settled yet, [2, B], and which of them walk upwards, [B]."""
    goes_on, up = walk.goes_on(known)
    return torch.stack([goes_on, goes_on | walk.left_open(scan, known, rounding).any(dim=0)]), up


def _step(scan: Scan, grid: Tensor, known: Evaluated, walk: Walk, rows: Tensor, upwards: Tensor) -> None:
    """Evaluate the next candidate of each of `rows` [n], the mask `upwards` [n] says on which side."""
    index = torch.where(upwards, walk.high[rows] + 1, walk.low[rows] - 1)
    state, others = scan.evaluate(grid[index].unsqueeze(0), rows, grid[(index + 1).clamp_max(len(grid) - 1)])
    assert others is not None
    _stepped(scan, known, walk, rows, index, upwards, state, others)


@fused
def _stepped(
    scan: Scan,
    known: Evaluated,
    walk: Walk,
    rows: Tensor,
    index: Tensor,
    upwards: Tensor,
    state: SoftmaxState,
    others: Tensor,
) -> None:
    known.enter(rows, index, state)
    inner = scan.inner(state, 0, rows)
    walk.high[rows], walk.others[rows] = (
        torch.where(upwards, new, old[rows]) for new, old in ((index, walk.high), (others, walk.others))
    )
    walk.low[rows], walk.inner[rows] = (
        torch.where(upwards, old[rows], new) for new, old in ((index, walk.low), (inner, walk.inner))
    )


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
    if grid.device.type in READ_FREELY and bool((far := is_open & ~near).any()):
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
