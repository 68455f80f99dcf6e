"""The three estimators of the paper: least squares, maximum likelihood and rule of thumb."""

from torch import Tensor

from cosify.functional import kappa_grid
from cosify.functional.ls import search_ls
from cosify.functional.ml import search_ml
from cosify.functional.rule import rule_from_prototypes
from cosify.heads.policies.policy import Geometry, KappaPolicy


class LeastSquares(KappaPolicy):
    """Eqs. (10), (11) and (14): the method of the paper."""

    def estimate(self, geometry: Geometry) -> Tensor | None:
        grid = kappa_grid(device=geometry.cosine.device)
        return search_ls(geometry.unit_embedding, geometry.prototypes, geometry.cosine, grid)


class MaximumLikelihood(KappaPolicy):
    """Eqs. (5), (6) and (14)."""

    def estimate(self, geometry: Geometry) -> Tensor | None:
        grid = kappa_grid(device=geometry.cosine.device)
        return search_ml(geometry.cosine, geometry.unit_embedding.shape[1], grid)


class RuleOfThumb(KappaPolicy):
    """Eq. (4).

    Deviation: not below the smallest candidate of Eq. (14), because prototypes that cancel, as a simplex does, give
    kappa = 0 and with it no gradient.
    """

    momentum = 1.0  # a function of the weights alone: the last value is the exact one

    def estimate(self, geometry: Geometry) -> Tensor | None:
        smallest = kappa_grid(device=geometry.cosine.device)[0]
        return rule_from_prototypes(geometry.prototypes).clamp_min(smallest)
