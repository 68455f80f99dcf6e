"""Kappa of several heads that another program's loop trains."""

from collections.abc import Iterable

import torch
from torch import Tensor

from cosify.heads.cosine_head import CosineHead
from cosify.heads.kappa_statistics import KappaStatistics

WATCHED = ("mean", "median", "low_edge", "high_edge")  # of a KappaSummary


class KappaWatch:
    """Collects kappa of the training batches of some heads, without waiting for the device, until it is read.

    Args:
        heads: cosine heads; those in evaluation mode, such as a teacher's or an EMA model's, are passed over.
    """

    def __init__(self, heads: Iterable[CosineHead]) -> None:
        self._heads = list(heads)
        self._statistics: KappaStatistics | None = None
        self._seen: list[Tensor | None] = [None] * len(self._heads)

    def look(self) -> None:
        """Count the last training batch of each head, unless it was counted already."""
        for index, head in enumerate(self._heads):
            kappa = head.last_kappa
            if kappa is None or not head.training or kappa is self._seen[index]:
                continue
            if self._statistics is None:
                has_edges = all(each.policy.searches_grid for each in self._heads)
                self._statistics = KappaStatistics(kappa.device, has_edges=has_edges)
            self._statistics.update(kappa.to(self._statistics.grid.device))
            self._seen[index] = kappa

    def read(self, *, all_ranks: bool = False) -> dict[str, float]:
        """Return what was collected since the last reading, and forget it; empty if there was no training batch.

        Args:
            all_ranks: over all processes of `torch.distributed`, which then must call this together after the same
                number of batches; default: of this process.

        Returns:
            `kappa_mean`, `kappa_median`, and, if every head picks kappa from the grid of Eq. (14), the shares of
            samples at its edges, in [0, 1]: `kappa_low_edge`, `kappa_high_edge`.
        """
        statistics, self._statistics = self._statistics, None
        if statistics is None:
            return {}
        distributed = all_ranks and torch.distributed.is_available() and torch.distributed.is_initialized()
        ranks = (_all_sum, torch.distributed.get_world_size()) if distributed else ()
        summary = statistics.summary(*ranks)
        assert summary is not None
        found = {f"kappa_{name}": getattr(summary, name) for name in WATCHED}
        return {name: value for name, value in found.items() if value is not None}


def _all_sum(values: Tensor) -> Tensor:
    summed = values.clone()
    torch.distributed.all_reduce(summed)
    return summed
