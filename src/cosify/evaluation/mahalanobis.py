"""Mahalanobis distance to the nearest class mean under one covariance for all classes."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cosify.errors import InputError
from cosify.evaluation.rows import Rows, row_blocks

RIDGE = 1e-6  # of the mean variance: features behind a ReLU at a small kappa have a rank near C
LEAST_PIVOT = 1e-10  # of the variance of a dimension, not explained by those before it: less may be rounding


@dataclass(frozen=True, eq=False)
class TiedGaussian:
    """Classes as normal distributions with one covariance.

    Lee et al., NeurIPS 2018, on the penultimate features alone: no input noise, no layers, no weights tuned on
    outliers.  All in float64.

    Attributes:
        means: [K, d], of the classes that occur.
        factor: [d, d], lower triangular: L L^T is the covariance, its ridge included.
        unit: whether features are divided by their norm first.
    """

    means: Tensor
    factor: Tensor
    unit: bool = False

    @classmethod
    def fit(cls, embedding: Rows, labels: Tensor, *, ridge: float = RIDGE, unit: bool = False) -> "TiedGaussian":
        """Estimate means and covariance, S = (1/N) sum_n (x_n - mu_y)(x_n - mu_y)^T + ridge tr(S)/d I.

        Args:
            embedding: [N, d], of training samples under the evaluation transform.
            labels: [N], class indices.
            ridge: 0 or more.
            unit: divide features by their norm first, as Mahalanobis++ does (Mueller & Hein, ICML 2025).

        Raises:
            ValueError: if shapes do not fit, values are not finite, or the covariance is singular even so.
        """
        if len(embedding) == 0 or len(embedding) != len(labels):
            raise InputError(
                f"embedding has {len(embedding)} rows and labels {len(labels)}, expected as many, at least one; use the"
                " training split of the model"
            )
        _, index, counts = labels.unique(return_inverse=True, return_counts=True)
        dim = embedding.shape[1]
        sums = torch.zeros(len(counts), dim, dtype=torch.float64)
        for part, rows in _blocks(embedding, unit):
            sums.index_add_(0, index[part], rows)
        means = sums / counts.unsqueeze(1)
        scatter = torch.zeros(dim, dim, dtype=torch.float64)
        for part, rows in _blocks(embedding, unit):
            centred = rows - means[index[part]]
            scatter += centred.T @ centred
        covariance = scatter / len(embedding)
        if not bool(covariance.isfinite().all()):
            raise InputError(
                "the features hold NaN or infinity, expected finite numbers; check the model and its images"
            )
        covariance.diagonal().add_(ridge * covariance.diagonal().mean())
        factor, failed = torch.linalg.cholesky_ex(covariance)
        # Rounding alone may leave the pivots of a singular matrix positive.
        if int(failed) != 0 or bool((factor.diagonal().square() < LEAST_PIVOT * covariance.diagonal()).any()):
            raise InputError(
                f"the covariance of {len(embedding)} features of {dim} dimensions is singular with ridge {ridge},"
                " expected features that vary in every dimension; use more training samples or a larger ridge"
            )
        return cls(means, factor.contiguous(), unit)  # else a saved copy, by rows, would round otherwise

    def squared_distance(self, embedding: Rows) -> Tensor:
        """Return D^2 = min_c (x - mu_c)^T S^-1 (x - mu_c), [N], float64.

        Raises:
            ValueError: if the features have another dimension.
        """
        if embedding.ndim != 2 or embedding.shape[1] != self.means.shape[1]:
            raise InputError(
                f"embedding has shape {list(embedding.shape)}, expected [N, {self.means.shape[1]}] as in the fit; use"
                " features of the same model"
            )
        # The nearest mean by |m|^2 - 2 y m, the distance to it by its definition: a difference of squares would cancel
        # for classes that are far apart, and for a far-away origin, therefore centred.
        centre = self.means.mean(dim=0)
        means = self._whitened(self.means - centre)
        found = []
        for _, rows in _blocks(embedding, self.unit):
            whitened = self._whitened(rows - centre)
            nearest = (means.square().sum(dim=1) - 2 * whitened @ means.T).argmin(dim=1)
            found.append((whitened - means[nearest]).square().sum(dim=1))
        return torch.cat(found) if found else torch.empty(0, dtype=torch.float64)

    def _whitened(self, rows: Tensor) -> Tensor:
        whitened: Tensor = torch.linalg.solve_triangular(self.factor, rows.T, upper=False).T
        return whitened


def _blocks(embedding: Rows, unit: bool) -> Iterator[tuple[slice, Tensor]]:
    """Yield each block as a slice and its rows in float64, of norm 1 if `unit`."""
    for part, block in row_blocks(embedding):
        rows = block.cpu().double()
        yield part, F.normalize(rows, dim=1) if unit else rows
