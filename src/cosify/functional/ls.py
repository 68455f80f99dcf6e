"""Least-squares kappa: the projection error of Eq. (10) and its minimiser over the grid, Eq. (11)."""

import torch
from torch import Tensor

from cosify.functional.checks import check_kappa, check_rows
from cosify.functional.grid import grid_or_default
from cosify.functional.similarity import full_precision, unit_rows

# Largest block of softmax coefficients [n, B, C] held at once, in elements (64 MiB of float32).
MAX_COEFFICIENTS = 1 << 24


def ls_energy(embedding: Tensor, weight: Tensor, kappa: float | Tensor) -> Tensor:
    """Return the squared distance, halved, from the unit embedding to the softmax average of the prototypes.

    Kobayashi, Eq. (10).  Differentiable in all three arguments.

    Args:
        embedding: [B, d], any norm.
        weight: [C, d], any norm.
        kappa: > 0, scalar or [B].

    Returns:
        [B], float32 (float64 for float64 inputs).

    Raises:
        ValueError: if shapes do not fit, or a CPU input is not finite or kappa not positive.
    """
    check_rows(embedding, weight)
    check_kappa(kappa, embedding.shape[0])
    with full_precision(embedding.device):
        unit_embedding, prototypes = unit_rows(embedding), unit_rows(weight)
        candidates = torch.as_tensor(kappa, dtype=unit_embedding.dtype, device=embedding.device).reshape(1, -1)
        return _energies(unit_embedding, prototypes, unit_embedding @ prototypes.T, candidates)[0]


def ls_kappa(embedding: Tensor, weight: Tensor, grid: Tensor | None = None) -> Tensor:
    """Return for each sample the kappa whose softmax average of prototypes lies nearest to the unit embedding.

    Kobayashi, Eqs. (10), (11) and (14).  No gradient flows: kappa is a constant of the backward pass.  Candidates whose
    energies differ by rounding alone count as tied, and ties go to the smaller kappa.

    Args:
        embedding: [B, d], any norm; a zero row gets the smallest candidate.
        weight: [C, d], any norm.
        grid: [K] increasing candidates; default: `kappa_grid()`.

    Returns:
        [B], float32 (float64 for float64 inputs), values of the grid.

    Raises:
        ValueError: if shapes do not fit, the grid is not increasing, or a CPU input is not finite.
    """
    check_rows(embedding, weight)
    grid = grid_or_default(grid, embedding.device)
    with torch.no_grad(), full_precision(embedding.device):
        unit_embedding, prototypes = unit_rows(embedding), unit_rows(weight)
        return search_ls(unit_embedding, prototypes, unit_embedding @ prototypes.T, grid)


@torch.no_grad()
def search_ls(unit_embedding: Tensor, prototypes: Tensor, cosine: Tensor, grid: Tensor) -> Tensor:
    """Return the minimiser of Eq. (10) over `grid` for rows that are already normalised.

    All candidates are evaluated, several in one matrix product as far as `MAX_COEFFICIENTS` goes.

    Args:
        unit_embedding: [B, d].
        prototypes: [C, d].
        cosine: [B, C], their product.
        grid: [K], increasing.

    Returns:
        [B] values of the grid.
    """
    candidates = grid.to(cosine.dtype)[:, None]
    # One candidate at a time in a traced graph: the batch size may be symbolic there, and no shape may depend on it.
    step = 1 if torch.compiler.is_compiling() else max(1, MAX_COEFFICIENTS // max(cosine.numel(), 1))
    energy = torch.cat([_energies(unit_embedding, prototypes, cosine, part) for part in candidates.split(step)])
    rounding = 2 * torch.finfo(energy.dtype).eps
    tied = energy <= energy.amin(dim=0) + rounding
    return candidates[:, 0][tied.to(torch.int8).argmax(dim=0)]  # the first of the tied ones


def _energies(unit_embedding: Tensor, prototypes: Tensor, cosine: Tensor, kappa: Tensor) -> Tensor:
    """Return Eq. (10) [n, B] for kappa [n, 1] or [n, B].

    The norm is taken of the difference: the expanded form 1 - 2 s + |m|^2 cancels where the two nearly agree.
    """
    coefficients = torch.softmax(kappa.unsqueeze(-1) * cosine, dim=-1)
    return 0.5 * (unit_embedding - coefficients @ prototypes).square().sum(dim=-1)
