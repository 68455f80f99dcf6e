"""The labelled class of each sample, kept apart: with a margin, or 1 - p near 0, a difference would cancel.

With odds = mass of the target over mass of the rest, the softmax gives the target the share sigmoid(log odds), and an
average over all classes is the mean of the rest's average and the target's own value with these shares.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cosify.functional.search.blocks import some


class Target:
    """No class is kept apart: the rest is all classes.  Shapes end in [B], the samples, or [B, d]."""

    def of(self, rows: Tensor | None) -> "Target":
        """Return the targets of some samples."""
        return self

    def log_odds(self, kappa: Tensor, nearest: Tensor, mass: Tensor) -> Tensor:
        """Return the logarithm of the target's mass over the rest's, `mass`, relative to `nearest`."""
        return torch.full_like(mass, -torch.inf)

    def mass(self, kappa: Tensor, nearest: Tensor) -> Tensor | float:
        """Return the target's mass relative to `nearest`, [n, B] for kappa [n, 1]."""
        return 0.0

    def nearest(self, nearest: Tensor) -> Tensor:
        """Return the largest cosine of all, from that of the rest."""
        return nearest

    def inner(self, inner: Tensor, log_odds: Tensor) -> Tensor:
        """Return the average cosine of all, from that of the rest."""
        return inner

    def mean(self, mean: Tensor, log_odds: Tensor) -> Tensor:
        """Return the average prototype of all [.., d], from that of the rest."""
        return mean

    def along(self, along: Tensor, direction: Tensor, log_odds: Tensor) -> Tensor:
        """Return the average of prototype . direction [B, d] of all, from that of the rest."""
        return along


@dataclass(frozen=True)
class Labelled(Target):
    """One class of each sample is kept apart.

    Attributes:
        cosine: [B]; -inf without a label.
        prototype: [B, d]; 0 without a label.
    """

    cosine: Tensor
    prototype: Tensor

    def of(self, rows: Tensor | None) -> "Labelled":
        return Labelled(some(rows, self.cosine), some(rows, self.prototype))

    def log_odds(self, kappa: Tensor, nearest: Tensor, mass: Tensor) -> Tensor:
        return kappa * (self.cosine - nearest) - mass.log()

    def mass(self, kappa: Tensor, nearest: Tensor) -> Tensor:
        return (kappa * (self.cosine - nearest)).exp()

    def nearest(self, nearest: Tensor) -> Tensor:
        return torch.maximum(nearest, self.cosine)

    def inner(self, inner: Tensor, log_odds: Tensor) -> Tensor:
        own = self.cosine.clamp_min(-1)  # -inf, of share 0, without a label
        return torch.lerp(inner, own.expand_as(inner), log_odds.sigmoid())

    def mean(self, mean: Tensor, log_odds: Tensor) -> Tensor:
        return torch.lerp(mean, self.prototype.expand_as(mean), log_odds.sigmoid().unsqueeze(-1))

    def along(self, along: Tensor, direction: Tensor, log_odds: Tensor) -> Tensor:
        own = (self.prototype * direction).sum(dim=1)
        return torch.lerp(along, own.expand_as(along), log_odds.sigmoid())
