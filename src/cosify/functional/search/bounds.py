"""Lower bounds of the energy of Eq. (10) at candidates that were not evaluated.

x is a unit embedding, z its cosines, p_k the softmax at kappa_k, m_k = sum p_k w the average prototype, s_k = x . m_k,
and E_k = 1/2 |x - m_k|^2.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cosify.functional.search.blocks import WINDOW, along
from cosify.functional.search.softmax import Scan, others
from cosify.functional.similarity import powers

# Added to the squared length of a direction.  It only lowers the bound, and without it rounding decides where two
# directions are parallel, as x and m are for a well-placed feature.
RIDGE = 1e-5


def bound_below(inner: Tensor) -> Tensor:
    """Return a bound for all candidates from this one downwards, from s at this one.

    E >= 1/2 (1 - s)^2 by Cauchy-Schwarz, and s grows with kappa: s' is the variance of z under p.
    """
    return 0.5 * (1 - inner).clamp_min(0).square()


def bound_above(nearest: Tensor, others: Tensor) -> Tensor:
    """Return a bound for all candidates from this one upwards, from 1 - p of the nearest class w at this one.

    p grows with kappa, and |m - w| <= 2 (1 - p).  So x is not much nearer to m than to w; and with q = 1 - w . m, which
    is at most 2 (1 - p), E >= 1 - z - q + q^2 / 2.

    Args:
        nearest: the largest cosine.
        others: 1 - p of its class.
    """
    distance = (2 - 2 * nearest).clamp_min(0).sqrt()
    by_distance = 0.5 * (distance - 2 * others).clamp_min(0).square()
    away = (2 * others).clamp_max(1)
    bound = torch.maximum(by_distance, 1 - nearest - away + 0.5 * away.square())
    # A zero row, of cosine 0, is no unit vector.  But where nothing is nearer, s <= 0 and E >= 1/2 (1 - s)^2 >= 1/2.
    return torch.where(nearest == 0, bound.clamp_max(0.5), bound)


class SpanBounds:
    """Bounds for chosen samples from projections on x and on average prototypes; more directions give tighter bounds.

    With a direction v and g = W v, v . m_k = p_k . g is a sum of numbers, for any number of candidates at the price of
    one matrix product.  x - m_k is at least as long as its projection on the span of the directions, which are made
    orthogonal one after the other:

        E_k >= 1/2 sum_v (v . x - v . m_k)^2 / (|v|^2 + ridge).

    Args:
        scan: samples and classes.
        grid: [K].
        rows: [n], the samples.
        nearest: [n], the largest cosine of their rest.
        candidates: numbers of those that will be asked for; an accelerator computes all from the first to the last.
    """

    def __init__(self, scan: Scan, grid: Tensor, rows: Tensor, nearest: Tensor, candidates: Sequence[int]) -> None:
        self._scan, self._grid, self._candidates = scan, grid, candidates
        self._rows, self._nearest = rows, nearest
        self._directions = scan.blocks.embedding[rows].unsqueeze(0)  # [v, n, d]; x is the first
        zero = scan.blocks.embedding.new_zeros(len(grid), len(rows))
        # [K, n] each: the bound by the directions before the last one, what the last one adds, and all that is known.
        self._before, self._last, self._bound = zero, zero, zero

    @property
    def num_averages(self) -> int:
        """Directions besides x."""
        return len(self._directions) - 1

    def keep(self, kept: Tensor) -> None:
        """Go on with some of the samples only, given by their numbers among these."""
        self._rows, self._nearest, self._directions = self._rows[kept], self._nearest[kept], self._directions[:, kept]
        self._before, self._last, self._bound = (each[:, kept] for each in (self._before, self._last, self._bound))

    def add(self, average: Tensor, wanted: Tensor) -> Tensor:
        """Project on one more average [n, d] at the candidates of a mask [K, n]; return all bounds, [K, n].

        A candidate that is not `wanted` keeps the bound that it has.
        """
        for _ in range(2):  # once leaves the rounding of a long projection, which a short direction would feel
            for known in self._directions:
                length = known.square().sum(dim=1, keepdim=True) + torch.finfo(known.dtype).tiny
                average = average - known * ((known * average).sum(dim=1, keepdim=True) / length)
        self._directions = torch.cat([self._directions, average.unsqueeze(0)])
        self._before, self._last = self._before + self._last, torch.zeros_like(self._last)
        return self.extend(wanted)

    def extend(self, wanted: Tensor) -> Tensor:
        """Project on the last direction at more candidates, those of a mask [K, n]; return all bounds, [K, n].

        Other candidates get the bounds that these imply for all candidates above or below them.
        """
        direction = self._directions[-1]
        share, inner, onto = self._sums(direction, wanted)
        residual = (direction * self._directions[0]).sum(dim=1) - onto
        added = 0.5 * residual.square() / (direction.square().sum(dim=1) + RIDGE)
        self._last = torch.where(wanted, added, self._last)
        if self.num_averages == 1:  # the projection on x comes with that on the first average
            self._before = torch.where(wanted, 0.5 * (1 - inner).square() / (1 + RIDGE), self._before)
        below = bound_below(inner).masked_fill(~wanted, 0).flip(0).cummax(dim=0).values.flip(0)
        nearest = self._scan.target.of(self._rows).nearest(self._nearest)
        above = bound_above(nearest, share).masked_fill(~wanted, 0).cummax(dim=0).values
        span = (self._before + self._last).masked_fill(~wanted, 0)
        self._bound = torch.stack([self._bound, below, above, span]).amax(dim=0)
        return self._bound

    def _sums(self, direction: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return 1 - p of the nearest class, sum p z and sum p g, [K, n] each, where `wanted`."""
        scan, num_rows = self._scan, len(direction)
        kappas = self._grid.to(direction.dtype)
        chosen: list[tuple[slice, slice | Tensor]] = []
        if direction.device.type == "cpu":
            for k, wants in enumerate(wanted.sum(dim=1).tolist()):
                if wants > 0:
                    # To pick out rows takes as long as to compute twice as many.
                    picked = slice(None) if 2 * wants > num_rows else wanted[k].nonzero().squeeze(1)
                    chosen.append((slice(k, k + 1), picked))
        else:  # finding the wanted ones would wait, and few large operations start sooner than many
            first, stop = self._candidates[0], self._candidates[-1] + 1
            step = WINDOW * len(scan.blocks.embedding) // num_rows  # fewer samples leave room for more
            chosen = [(slice(start, min(start + step, stop)), slice(None)) for start in range(first, stop, step)]
        sums = direction.new_zeros(3, len(kappas), num_rows)
        for block in scan.blocks.of(self._rows):
            gap = block.cosine - self._nearest.unsqueeze(1)
            cosine = block.cosine.clamp_min(-1)  # the target's -inf has power 0
            onto = along(direction, block.rows, block.factor)
            for some, rows in chosen:
                power = powers(kappas[some].reshape(-1, 1, 1), gap[rows])
                sums[0, some, rows] += power.sum(dim=-1)
                sums[1, some, rows] += (power * cosine[rows]).sum(dim=-1)
                sums[2, some, rows] += power.mul_(onto[rows]).sum(dim=-1)
        mass, inner, onto = scan.shards.sum(sums)
        mass = mass.clamp_min(torch.finfo(mass.dtype).tiny)
        kappas, target = kappas.unsqueeze(1), scan.target.of(self._rows)
        log_odds = target.log_odds(kappas, self._nearest, mass)
        share = others(target, kappas, self._nearest, mass, log_odds)
        return share, target.inner(inner / mass, log_odds), target.along(onto / mass, direction, log_odds)
