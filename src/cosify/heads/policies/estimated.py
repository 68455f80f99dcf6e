"""The three estimators of the paper: least squares, maximum likelihood and rule of thumb."""

from cosify.functional import kappa_grid
from cosify.functional.ls import search_ls
from cosify.functional.ml import search_ml
from cosify.functional.rule import rule_from_mean
from cosify.heads.policies.policy import Estimate, Geometry, KappaPolicy


class LeastSquares(KappaPolicy):
    """Eqs. (10), (11) and (14): the method of the paper."""

    searches_grid = True

    def estimate(self, geometry: Geometry) -> Estimate:
        grid = kappa_grid(device=geometry.kappa.device)
        solution = search_ls(geometry.scan, grid, geometry.last_kappa)
        return Estimate(solution.kappa, solution.softmax)


class MaximumLikelihood(KappaPolicy):
    """Eqs. (5), (6) and (14)."""

    searches_grid = True

    def estimate(self, geometry: Geometry) -> Estimate:
        return Estimate(search_ml(geometry.scan, kappa_grid(device=geometry.kappa.device)))


class RuleOfThumb(KappaPolicy):
    """Eq. (4).

    Deviation: not below the smallest candidate of Eq. (14), because prototypes that cancel, as a simplex does, give
    kappa = 0 and with it no gradient.
    """

    momentum = 1.0  # a function of the weights alone: the last value is the exact one

    def estimate(self, geometry: Geometry) -> Estimate:
        kappa = rule_from_mean(geometry.scan.prototype_sum() / geometry.num_classes)
        return Estimate(kappa.to(geometry.kappa.dtype).clamp_min(kappa_grid(device=kappa.device)[0]))
