"""What kappa did during an epoch, counted on the device and fetched once at its end."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from cosify.functional import kappa_grid
from cosify.functional.float64 import sum_dtype

SUM = Callable[[Tensor], Tensor]
ON_GRID_TOLERANCE = 1e-5  # relative; neighbours on the grid differ by 0.45
MAX_PIECES = 1000  # tensors of one number; on a GPU each takes half a kilobyte


@dataclass(frozen=True)
class KappaSummary:
    """Kappa of the training samples of an epoch, over all ranks.

    Attributes:
        mean: the kappa* of the paper's tables.
        median: exact for kappas on the grid of Eq. (14); for others the median of the steps' means.
        p10: tenth percentile, in the same sense.
        p90: ninetieth percentile.
        low_edge: share of samples at or below the smallest candidate, in [0, 1]; None where no grid is searched.
        high_edge: share at or above the largest, likewise.
        histogram: samples nearest to each candidate, on a log scale; 20 numbers.
    """

    mean: float
    median: float
    p10: float
    p90: float
    low_edge: float | None
    high_edge: float | None
    histogram: tuple[int, ...]

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> "KappaSummary | None":
        """Return the summary in a line of metrics.jsonl, None if its head has no kappa."""
        if "kappa_mean" not in record:
            return None
        values = {entry.name: record[f"kappa_{entry.name}"] for entry in fields(cls)}
        return cls(**{**values, "histogram": tuple(values["histogram"])})


class KappaStatistics:
    """Collect kappa without waiting for the device in any step.

    Estimated kappas are values of the grid, so counts describe them completely.  Others (fixed, trainable, rule,
    AdaCos) are one number a step; for these, the means of the steps are kept.

    Args:
        device: where the training runs.
        has_edges: whether the kappas are picked from the grid; others have no edge to be stuck at.
    """

    def __init__(self, device: torch.device, *, has_edges: bool = True) -> None:
        self.has_edges = has_edges
        self.grid = kappa_grid(device=device)
        self._boundaries = (self.grid[1:] * self.grid[:-1]).sqrt()
        self._counts = torch.zeros(len(self.grid), dtype=torch.int64, device=device)
        self._dtype = sum_dtype(device)
        # total, samples, samples at the low edge, samples at the high edge, samples off the grid
        self._sums = torch.zeros(5, dtype=self._dtype, device=device)
        self._step_means: list[Tensor] = []  # each [steps]

    def update(self, kappa: Tensor) -> None:
        """Add the kappas of a batch, [B]."""
        kappa = kappa.detach().float()
        nearest = torch.bucketize(kappa, self._boundaries)
        # Not bincount: on a GPU it waits for the device to learn its output's size.
        self._counts.scatter_add_(0, nearest, torch.ones_like(nearest))
        off_grid = (kappa - self.grid[nearest]).abs() > ON_GRID_TOLERANCE * kappa
        slack = 1 + ON_GRID_TOLERANCE
        flags = torch.stack([kappa <= self.grid[0] * slack, kappa * slack >= self.grid[-1], off_grid])
        self._sums[0] += kappa.to(self._dtype).sum()
        self._sums[1] += len(kappa)
        self._sums[2:] += flags.sum(dim=1)
        self._step_means.append(kappa.mean().to(self._dtype).reshape(1))
        if len(self._step_means) > MAX_PIECES:
            self._step_means = [torch.cat(self._step_means)]

    def latest(self) -> float | None:
        """Return the mean kappa of the last batch, None before the first; waits for the device."""
        return self._step_means[-1][-1].item() if self._step_means else None

    def state(self, all_sum: SUM, world_size: int) -> dict[str, Any]:
        """Return what was collected by all ranks, ready for JSON; every rank must call this together."""
        step_means = torch.cat(self._step_means) if self._step_means else self._sums[:0]
        return {
            "counts": all_sum(self._counts).tolist(),
            "sums": all_sum(self._sums).tolist(),
            "step_means": (all_sum(step_means) / world_size).tolist(),
        }

    def load_state(self, state: dict[str, Any], *, counts: bool = True) -> None:
        """Go on from `state`; without its samples on a rank for which another one `counts` them."""
        device = self.grid.device
        if counts:
            self._counts = torch.tensor(state["counts"], dtype=torch.int64, device=device)
            self._sums = torch.tensor(state["sums"], dtype=self._dtype, device=device)
        step_means = torch.tensor(state["step_means"], dtype=self._dtype, device=device)
        self._step_means = [step_means] if len(step_means) else []

    def edge_shares(self) -> tuple[float, float] | None:
        """Return the shares of samples so far at the lower and the upper edge of the grid; waits for the device."""
        if not self.has_edges:
            return None
        _, samples, low, high, _ = self._sums.tolist()
        return (low / samples, high / samples) if samples > 0 else (0.0, 0.0)

    def summary(self, all_sum: SUM = lambda values: values, world_size: int = 1) -> KappaSummary | None:
        """Return the statistics of all ranks, None without any sample.

        Args:
            all_sum: returns the sum of a tensor over all ranks; every rank must call this together.
            world_size: number of ranks; where a kappa is off the grid, each has made the same number of steps.
        """
        sums, counts = all_sum(self._sums).tolist(), all_sum(self._counts).tolist()
        total, samples, low, high, off_grid = sums
        if samples == 0:
            return None
        values, weights = self.grid.tolist(), counts
        if off_grid > 0:  # on all ranks, or on none
            values = sorted((all_sum(torch.cat(self._step_means)) / world_size).tolist())
            weights = [1] * len(values)
        cumulative = [*accumulate(weights)]
        # The smallest value that at least this share of the weight does not exceed.
        p10, median, p90 = (values[bisect_left(cumulative, share * cumulative[-1])] for share in (0.1, 0.5, 0.9))
        low_edge, high_edge = (low / samples, high / samples) if self.has_edges else (None, None)
        return KappaSummary(total / samples, median, p10, p90, low_edge, high_edge, tuple(counts))
