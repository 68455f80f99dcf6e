"""Maximum-likelihood kappa of a von Mises-Fisher kernel density over the prototypes, Eqs. (3), (5) and (6)."""

import torch
from torch import Tensor

from cosify.functional.checks import check_shapes
from cosify.functional.float64 import in_float64
from cosify.functional.grid import grid_or_default
from cosify.functional.search import Scan
from cosify.functional.similarity import full_precision


def ml_kappa(embedding: Tensor, weight: Tensor, grid: Tensor | None = None) -> Tensor:
    """Return for each sample the kappa under which the mixture centred on the prototypes makes it most likely.

    Kobayashi, Eqs. (5), (6) and (14), with the upper bound of the normaliser from Hornik and Gruen (movMF, 2014).  No
    gradient flows.  Ties go to the smaller kappa.

    Args:
        embedding: [B, d], any norm, d >= 2.
        weight: [C, d], any norm.
        grid: [K] increasing candidates; default: `kappa_grid()`.

    Returns:
        [B], float32 (float64 for float64 inputs), values of the grid.

    Raises:
        ValueError: if shapes do not fit, d < 2, the grid is not increasing, or a CPU input is not finite.
    """
    check_shapes(embedding, weight)
    grid = grid_or_default(grid, embedding.device)
    with torch.no_grad(), full_precision(embedding.device):
        return search_ml(Scan.of(embedding, weight), grid)


@torch.no_grad()
def search_ml(scan: Scan, grid: Tensor) -> Tensor:
    """Return the minimiser of Eq. (5) over `grid` [K], one value of it for each sample, [B]."""
    log_normaliser = log_vmf_normaliser(grid, scan.blocks.embedding.shape[1]).unsqueeze(1)
    nearest, log_mass = scan.log_masses(grid.unsqueeze(1))
    # Eq. (5) without its constants; kappa * nearest reaches 148, so the sum is formed in float64.
    energy = log_normaliser - in_float64(grid).unsqueeze(1) * in_float64(nearest) - in_float64(log_mass)
    return grid.to(nearest.dtype)[energy.argmin(dim=0).to(grid.device)]


def log_vmf_normaliser(kappa: Tensor, dim: int) -> Tensor:
    """Return the upper bound of log Z(kappa, d), the vMF normaliser of Eq. (3), up to a constant in kappa.

    Z is proportional to 0F1(; d/2; kappa^2 / 4), whose logarithm has the derivative I_{nu+1} / I_nu, nu = d/2 - 1.  Two
    bounds G(t) = t / (a + sqrt(t^2 + b^2)) of that ratio (Amos 1974; Simpson and Spector 1984) are integrated, the
    smaller of the two at each t, as in movMF.  Slack on the paper's grid: below 0.05 nats.

    Args:
        kappa: any shape, > 0.
        dim: d, at least 2.

    Returns:
        float64, on the CPU if the device has none, the shape of `kappa`, 0 at kappa = 0.

    Raises:
        ValueError: if d < 2.
    """
    if dim < 2:
        raise ValueError(f"embedding has dimension {dim}, expected at least 2 for a density on the sphere")
    nu = dim / 2 - 1
    kappa = in_float64(kappa)
    tight_a, tight_b = nu + 0.5, ((nu + 0.5) * (nu + 1.5)) ** 0.5
    crossing = kappa.clamp(max=((3 * nu + 5.5) * (nu + 1.5)) ** 0.5)  # beyond it the other bound is the smaller
    return (
        _integrated_bound(kappa, tight_a, tight_b)
        + _integrated_bound(crossing, nu, nu + 2)
        - _integrated_bound(crossing, tight_a, tight_b)
    )


def _integrated_bound(kappa: Tensor, a: float, b: float) -> Tensor:
    root = (kappa.square() + b * b).sqrt()
    return root - b - a * torch.log((a + root) / (a + b))
