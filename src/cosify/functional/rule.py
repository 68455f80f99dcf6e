"""Rule-of-thumb kappa, Eq. (4)."""

import torch
from torch import Tensor

from cosify.functional.checks import check_rows
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
    check_rows(weight, weight)
    with torch.no_grad(), full_precision(weight.device):
        return rule_from_prototypes(unit_rows(weight))


@torch.no_grad()
def rule_from_prototypes(prototypes: Tensor) -> Tensor:
    """Return Eq. (4) for rows [C, d] that are already normalised; scalar, computed in float64."""
    mean_length: Tensor = torch.linalg.vector_norm(prototypes.double().mean(dim=0))
    spread = (1 - mean_length.square()).clamp_min(torch.finfo(torch.float32).eps)
    kappa: Tensor = mean_length * (prototypes.shape[1] - mean_length.square()) / spread
    return kappa.to(prototypes.dtype)
