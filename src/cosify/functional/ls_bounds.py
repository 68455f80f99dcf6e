"""Lower bounds of the energy of Eq. (10) at candidates that were not evaluated.

x is a unit embedding, z its cosines, p_k the softmax at kappa_k, m_k = sum p_k w the average prototype, s_k = x . m_k,
and E_k = 1/2 |x - m_k|^2.
"""

import torch
from torch import Tensor

from cosify.functional.class_scan import ClassScan
from cosify.functional.float64 import in_float64
from cosify.functional.similarity import powers

# Added to the Gram matrix of the directions.  It only lowers the bound, and without it rounding decides where two of
# them are parallel, as x and m are for a well-placed feature.
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
    """Bounds for chosen samples from projections on x and on average prototypes; more directions, tighter bounds.

    With a direction v and g = W v, v . m_k = p_k . g is a sum of numbers, for any number of candidates at the price of
    one matrix product.  x - m_k is at least as long as its projection on the span of the directions.

    """

    def __init__(self, scan: ClassScan, grid: Tensor, rows: Tensor, nearest: Tensor) -> None:
        self._scan, self._grid = scan, grid
        self._rows, self._nearest = rows, nearest
        self._directions = scan.unit_embedding[rows].unsqueeze(1)  # [n, v, d]
        self._along = scan.unit_embedding.new_zeros(0, len(grid), len(rows))  # [v, K, n]
        self._bound = scan.unit_embedding.new_zeros(len(grid), len(rows))

    @property
    def num_averages(self) -> int:
        """Directions besides x."""
        return self._directions.shape[1] - 1

    def keep(self, mask: Tensor) -> None:
        """Go on with the samples of a mask [n] only."""
        self._rows, self._nearest = self._rows[mask], self._nearest[mask]
        self._directions, self._along = self._directions[mask], self._along[..., mask]
        self._bound = self._bound[:, mask]

    def add(self, direction: Tensor, wanted: Tensor) -> Tensor:
        """Project on one more direction [n, d] at the candidates of a mask [K, n]; return all bounds, [K, n].

        Candidates not `wanted` now must have been projected on nothing, or not be looked at again.
        """
        fresh = 2 if self.num_averages == 0 else 1  # with the first average, x comes too
        self._along = torch.cat([self._along, self._along.new_zeros(fresh, *self._bound.shape)])
        self._directions = torch.cat([self._directions, direction.unsqueeze(1)], dim=1)
        return self.extend(wanted)

    def extend(self, wanted: Tensor) -> Tensor:
        """Project on the last direction at more candidates, those of a mask [K, n]; return all bounds, [K, n].

        Others get what these imply for all above or all below them.
        """
        others, inner, along = self._sums(self._directions[:, -1], wanted)
        self._along[0] = torch.where(wanted, inner, self._along[0])
        self._along[-1] = torch.where(wanted, along, self._along[-1])
        below = bound_below(inner).masked_fill(~wanted, 0).flip(0).cummax(dim=0).values.flip(0)
        nearest = self._scan.nearest_of_all(self._nearest, self._rows)
        above = bound_above(nearest, others).masked_fill(~wanted, 0).cummax(dim=0).values
        span = self._span_energies().masked_fill(~wanted, 0)
        self._bound = torch.stack([self._bound, below, above, span]).amax(dim=0)
        return self._bound

    def _span_energies(self) -> Tensor:
        directions = in_float64(self._directions)
        gram = directions @ directions.mT
        gram.diagonal(dim1=1, dim2=2).add_(RIDGE)
        residual = directions @ directions[:, :1].mT - in_float64(self._along).permute(2, 0, 1)  # [n, v, K]
        squared = (residual * torch.linalg.solve(gram, residual)).sum(dim=1)
        bound: Tensor = (0.5 * squared).T.to(self._along.dtype).to(self._along.device)
        return bound

    def _sums(self, direction: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return 1 - p of the nearest class, sum p z and sum p g, [K, n] each, where `wanted`."""
        scan, num_rows = self._scan, len(direction)
        kappas = self._grid.to(direction.dtype)
        everyone = torch.arange(num_rows, device=direction.device)
        chosen = [(k, wanted[k].nonzero().squeeze(1)) for k in wanted.any(dim=1).nonzero().squeeze(1).tolist()]
        # To pick out rows takes as long as to compute twice as many.
        chosen = [(k, everyone if 2 * len(rows) > num_rows else rows) for k, rows in chosen]
        sums = direction.new_zeros(3, len(kappas), num_rows)
        for block in scan.blocks(self._rows):
            gap = block.cosine - self._nearest.unsqueeze(1)
            cosine = block.cosine.clamp_min(-1)  # the target's -inf has power 0
            along = direction @ block.prototypes.T
            for k, rows in chosen:
                whole = len(rows) == num_rows
                power = powers(kappas[k], gap if whole else gap[rows])
                sums[0, k, rows] += power.sum(dim=1)
                sums[1, k, rows] += (power * (cosine if whole else cosine[rows])).sum(dim=1)
                sums[2, k, rows] += power.mul_(along if whole else along[rows]).sum(dim=1)
        mass, inner, along = scan.all_sum(sums)
        mass = mass.clamp_min(torch.finfo(mass.dtype).tiny)
        inner, along = inner / mass, along / mass
        kappas = kappas.unsqueeze(1)
        log_odds = scan.log_odds(kappas, self._nearest, mass, self._rows)
        if scan.target is not None:
            cosine, prototype = scan.target.cosine[self._rows], scan.target.prototype[self._rows]
            share = log_odds.sigmoid()
            inner = torch.lerp(inner, cosine.clamp_min(-1).expand_as(inner), share)
            along = torch.lerp(along, (prototype * direction).sum(dim=1).expand_as(along), share)
        return scan.others(kappas, self._nearest, mass, log_odds, self._rows), inner, along
