"""What rounding can hide: energies that float32 cannot tell apart, and their comparison in float64."""

import torch
from torch import Tensor

from cosify.functional.float64 import float64_device
from cosify.functional.fusion import fused
from cosify.functional.search.softmax import Scan

# Error of a cosine, by the precision of float32 products.
ROUNDING = {"none": 2.0**-23, "ieee": 2.0**-23, "tf32": 2.0**-15, "bf16": 2.0**-12}
TIE = 1e-12  # of energies in float64: what lies closer counts as equal


def rounding_of(scan: Scan, grid: Tensor) -> Tensor:
    """Return the largest difference of energies whose order rounding may have changed, for each candidate, [K].

    An error of a cosine is multiplied by kappa.  Measured in float32 against float64, C to 10^4 and kappa to 148: at
    most a third of this.
    """
    embedding = scan.blocks.embedding
    if embedding.dtype == torch.float64:
        return torch.full_like(grid, TIE, dtype=torch.float64)
    return ROUNDING[matmul_precision(embedding.device)] * (4 + grid / 4)


def matmul_precision(device: torch.device) -> str:
    """Return how float32 products are computed on `device`: a key of `ROUNDING`.

    It is set by `torch.set_float32_matmul_precision` or `torch.backends.*.fp32_precision`;
    `torch.get_float32_matmul_precision()` raises after the second.
    """
    backend = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    precision: str = backend.matmul.fp32_precision
    return precision


def first_least(energy: Tensor, tie: float) -> Tensor:
    """Return the first candidate, [B], whose energy [K, B] is not above the least one by more than `tie`."""
    return (energy <= energy.amin(dim=0) + tie).to(torch.int8).argmax(dim=0)


@fused
def _ranked(energy: Tensor, rounding: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best candidates [B], and where others are as good up to rounding, all of these, [K, B]."""
    least, index = energy.min(dim=0)
    close = energy <= least + torch.maximum(rounding.unsqueeze(1), rounding[index])
    return index, close & (close.sum(dim=0) > 1)


def settle(scan: Scan, grid: Tensor, energy: Tensor) -> tuple[Tensor, int]:
    """Return the best candidates [B] by energies [K, B], and how many had to be compared in float64."""
    if energy.dtype == torch.float64:
        return first_least(energy, TIE), 0
    index, close = _ranked(energy, rounding_of(scan, grid))
    close = scan.shards.agreed(close)
    candidates, rows = close.nonzero(as_tuple=True)
    if len(rows) == 0:
        return index, 0
    place = float64_device(energy.device)
    exact = torch.full_like(energy, torch.inf, dtype=torch.float64, device=place)
    for picked, some in zip(candidates.split(len(index)), rows.split(len(index)), strict=True):
        state, _ = scan.in_float64(some).evaluate(grid[picked].unsqueeze(0).to(place))
        exact[picked.to(place), some.to(place)] = state.energy[0]
    settled = close.any(dim=0)
    index[settled] = first_least(exact[:, settled.to(place)], TIE).to(index.device)
    return index, len(rows)
