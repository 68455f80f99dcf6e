"""Rule-of-thumb kappa, Eq. (4)."""

import torch
from torch import Tensor

from cosify.functional.checks import check_finite, check_shapes
from cosify.functional.float64 import sum_dtype
from cosify.functional.similarity import full_precision, unit_rows


def rule_kappa(weight: Tensor) -> Tensor:
    """Return the rule-of-thumb bandwidth from the mean direction of the classifier weights.

    Kobayashi, Eq. (4), from Banerjee et al. 2005.  No gradient flows.  Deviation: 1 - r^2 is kept above the rounding of
    float32, so that identical weights give a large finite value.

    Args:
        weight: [C, d], any norm.

    Returns:
        Scalar, float32 (float64 for a float64 input), >= 0; it is 0 where the prototypes cancel, as in a simplex.

    Raises:
        ValueError: if `weight` is not [C, d] or, on the CPU, not finite.
    """
    check_shapes(weight, weight)
    check_finite(weight, "weight")
    with torch.no_grad(), full_precision(weight.device):
        prototypes = unit_rows(weight)
        mean = prototypes.to(sum_dtype(prototypes.device)).mean(dim=0)
        return rule_from_mean(mean).to(prototypes.dtype)


def rule_from_mean(mean_prototype: Tensor) -> Tensor:
    """Return Eq. (4) for the mean [d] of the prototypes; a scalar."""
    mean_length: Tensor = torch.linalg.vector_norm(mean_prototype)
    spread = (1 - mean_length.square()).clamp_min(torch.finfo(torch.float32).eps)
    kappa: Tensor = mean_length * (len(mean_prototype) - mean_length.square()) / spread
    return kappa
