"""Least-squares kappa: the projection error of Eq. (10) and its minimiser over the grid, Eq. (11)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from cosify.functional.checks import check_kappa, check_rows, values_hidden
from cosify.functional.class_scan import KAPPAS_AT_ONCE, ClassScan, SoftmaxState, traced_at_once
from cosify.functional.float64 import float64_device, sum_dtype
from cosify.functional.grid import expected_kappa, grid_or_default
from cosify.functional.ls_certified import search_certified
from cosify.functional.similarity import full_precision, unit_rows

# Multiply-adds of the full grid, 20 B C d, up to which it is taken: below it the search's own bookkeeping costs more,
# and on a GPU its two looks at the values, each of which waits for the device.
GRID_WORK = {"cpu": 1 << 24, "cuda": 25 << 30}
# The local search walks from neighbour to neighbour, so a very fine grid is evaluated whole.
FINEST_GRID = 64
# Error of a cosine, by the precision of float32 products.
ROUNDING = {"none": 2.0**-23, "ieee": 2.0**-23, "tf32": 2.0**-15, "bf16": 2.0**-12}
TIE = 1e-12  # of energies in float64: what lies closer counts as equal


@dataclass(frozen=True)
class LsSolution:
    """The minimiser of Eq. (10), and what finding it took.

    Attributes:
        kappa: [B], values of the grid.
        index: [B], their numbers in it.
        softmax: the softmax at kappa, n = 1, whose average Eq. (12) needs; None if the route does not pass by it.
        evaluations: products [B, C] x [C, d] of the search, a mean over samples; a float64 comparison counts as one.
        open_pairs: how many (sample, candidate) no bound ruled out.
        num_candidates: K.
    """

    kappa: Tensor
    index: Tensor
    softmax: SoftmaxState | None
    evaluations: float
    open_pairs: int
    num_candidates: int

    @property
    def edges(self) -> tuple[int, int]:
        """Number of samples at the smallest and at the largest candidate; many say that the grid is too narrow."""
        return int((self.index == 0).sum()), int((self.index == self.num_candidates - 1).sum())


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
        cosine = unit_embedding @ prototypes.T
        candidates = torch.as_tensor(kappa, dtype=cosine.dtype, device=cosine.device).reshape(-1, 1)
        # The norm is taken of the difference: the expanded form 1 - 2 s + |m|^2 cancels where the two nearly agree.
        return 0.5 * (unit_embedding - torch.softmax(candidates * cosine, dim=1) @ prototypes).square().sum(dim=1)


def ls_kappa(
    embedding: Tensor,
    weight: Tensor,
    grid: Tensor | None = None,
    *,
    start: float | None = None,
    chunk: int | None = None,
    process_group: ProcessGroup | None = None,
) -> Tensor:
    """Return for each sample the kappa whose softmax average of prototypes lies nearest to the unit embedding.

    Kobayashi, Eqs. (10), (11) and (14).  No gradient flows: kappa is a constant of the backward pass.  The result is
    exact: candidates whose energies differ by no more than rounding are compared in float64, equal ones go to the
    smaller kappa.  It does not depend on `start`, `chunk`, the split into batches or the number of processes.

    Args:
        embedding: [B, d], any norm; a zero row gets the smallest candidate.
        weight: [C, d], any norm; of a process group this rank's rows, at least one.
        grid: [K] increasing candidates; default: `kappa_grid()`.
        start: where the search begins, such as the mean of an earlier batch; a matter of time only.
        chunk: classes in a block; memory is O(B (chunk + d)).  Default: from a budget of some MB.
        process_group: over which the classes are sharded; all ranks give the same embedding and get the same result.

    Returns:
        [B], float32 (float64 for float64 inputs), values of the grid.

    Raises:
        ValueError: if shapes do not fit, the grid is not increasing, or a CPU input is not finite.
    """
    return ls_search(embedding, weight, grid, start=start, chunk=chunk, process_group=process_group).kappa


def ls_search(
    embedding: Tensor,
    weight: Tensor,
    grid: Tensor | None = None,
    *,
    start: float | None = None,
    chunk: int | None = None,
    process_group: ProcessGroup | None = None,
) -> LsSolution:
    """Return what `ls_kappa` does, with its diagnostics: evaluations, open pairs, edges.

    Arguments and errors as in `ls_kappa`.
    """
    check_rows(embedding, weight)
    grid = grid_or_default(grid, embedding.device)
    with torch.no_grad(), full_precision(embedding.device):
        scan = ClassScan.of(embedding, weight, chunk, process_group).stored()
        if start is None:
            num_classes = scan.all_sum(torch.tensor(len(weight), device=weight.device))
            start = expected_kappa(max(2, int(num_classes)))
        return search_ls(scan, grid, torch.tensor([start], device=grid.device))


def ls_route(scan: ClassScan, grid: Tensor) -> Literal["grid", "certified"]:
    """Decide how Eq. (11) is solved; the answer is the same.

    All candidates at once where the problem is small: a search is some hundred short operations.  So too under a trace
    (compile, export) and on the meta device, which cannot follow a search whose steps depend on values, and for a grid
    so fine that walking it would take longer, or of fewer candidates than the search begins with.  The certified search
    otherwise.
    """
    if values_hidden() or scan.unit_embedding.is_meta or not KAPPAS_AT_ONCE <= len(grid) <= FINEST_GRID:
        return "grid"
    if scan.group is not None:  # ranks may hold different numbers of classes, but must take one route
        return "certified"
    num_rows, dim = scan.unit_embedding.shape
    limit = GRID_WORK.get(scan.unit_embedding.device.type, GRID_WORK["cuda"])
    return "grid" if len(grid) * num_rows * len(scan.weight) * dim <= limit else "certified"


@torch.no_grad()
def search_ls(scan: ClassScan, grid: Tensor, start: Tensor) -> LsSolution:
    """Return the minimiser of Eq. (10) over `grid` [K], beginning at a kappa, [1] or [B].

    On an accelerator the small route does not look at values, so that nothing waits: there candidates whose energies
    differ by less than float32's rounding are not compared again.
    """
    if ls_route(scan, grid) == "grid":
        energy = _all_energies(scan, grid)
        if values_hidden() or scan.unit_embedding.device.type != "cpu":
            index = _first_within(energy, 2 * torch.finfo(energy.dtype).eps)
        else:
            index, _ = _settle(scan, grid, energy)
        return LsSolution(grid.to(energy.dtype)[index], index, None, float(len(grid)), 0, len(grid))
    dtype = sum_dtype(grid.device)
    boundaries = (grid[1:].to(dtype) * grid[:-1].to(dtype)).sqrt()
    known = search_certified(scan, grid, torch.bucketize(start.to(dtype), boundaries), _rounding(scan, grid))
    index, compared = _settle(scan, grid, known.energy)
    # A zero row has the same energy at every kappa, and no direction that the bounds could use.  What has moved was
    # compared, so that without a comparison nothing waits for a look.
    index = index.masked_fill(torch.linalg.vector_norm(scan.unit_embedding, dim=1) == 0, 0)
    if compared > 0 or known.energy.dtype == torch.float64:
        moved = scan.agreed(index != known.index).nonzero().squeeze(1)
        if len(moved) > 0:
            state, _ = scan.solve(grid[index[moved]].unsqueeze(0), moved)
            known.best.put(moved, state, torch.ones_like(moved, dtype=torch.bool))
    evaluations = (known.products + compared) / max(scan.unit_embedding.shape[0], 1)
    kappa = grid.to(known.energy.dtype)[index]
    return LsSolution(kappa, index, known.best, evaluations, known.open_pairs, len(grid))


def _all_energies(scan: ClassScan, grid: Tensor) -> Tensor:
    """Return Eq. (10) at every candidate, [K, B], as many at once as a block of the scan has room for."""
    if scan.group is not None:  # ranks must make the same number of walks
        room = 1
    elif values_hidden():  # B may be symbolic
        room = traced_at_once(len(grid), len(scan.weight))
    else:
        room = KAPPAS_AT_ONCE * max(1, scan.chunk // len(scan.weight))
    return torch.cat([scan.solve(part.unsqueeze(1))[0].energy for part in grid.split(room)])


def _first_within(energy: Tensor, margin: float) -> Tensor:
    """Return the first candidate, [B], whose energy [K, B] is not above the least one by more than `margin`."""
    return (energy <= energy.amin(dim=0) + margin).to(torch.int8).argmax(dim=0)


def _rounding(scan: ClassScan, grid: Tensor) -> Tensor:
    """Return how far energies may lie apart that rounding can have put in the wrong order, for each candidate, [K].

    An error of a cosine is multiplied by kappa.  Measured in float32 against float64, C to 10^4 and kappa to 148: at
    most a third of this.
    """
    if scan.unit_embedding.dtype == torch.float64:
        return torch.full_like(grid, TIE, dtype=torch.float64)
    return ROUNDING[matmul_precision(scan.unit_embedding.device)] * (4 + grid / 4)


def matmul_precision(device: torch.device) -> str:
    """Return how float32 products are computed on `device`: a key of `ROUNDING`.

    Both ways to say it are heard, `torch.set_float32_matmul_precision` and `torch.backends.*.fp32_precision`;
    `torch.get_float32_matmul_precision()` raises after the second one.
    """
    backend = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    precision: str = backend.matmul.fp32_precision
    return precision


def _settle(scan: ClassScan, grid: Tensor, energy: Tensor) -> tuple[Tensor, int]:
    """Return the best candidates [B], and how many had to be compared in float64."""
    if energy.dtype == torch.float64:
        return _first_within(energy, TIE), 0
    least, index = energy.min(dim=0)
    rounding = _rounding(scan, grid)
    close = energy <= least + torch.maximum(rounding.unsqueeze(1), rounding[index])
    close = scan.agreed(close & (close.sum(dim=0) > 1))
    candidates, rows = close.nonzero(as_tuple=True)
    if len(rows) == 0:
        return index, 0
    place = float64_device(energy.device)
    exact = torch.full_like(energy, torch.inf, dtype=torch.float64, device=place)
    for picked, some in zip(candidates.split(len(index)), rows.split(len(index)), strict=True):
        state, _ = scan.in_float64(some).solve(grid[picked].unsqueeze(0).to(place))
        exact[picked.to(place), some.to(place)] = state.energy[0]
    settled = close.any(dim=0)
    index[settled] = _first_within(exact[:, settled.to(place)], TIE).to(index.device)
    return index, len(rows)
