"""Least-squares kappa: the projection error of Eq. (10) and its minimiser over the grid, Eq. (11)."""

from dataclasses import dataclass
from typing import Literal, overload

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from cosify.functional.checks import check_chunk, check_kappa, check_rows, check_shapes, values_hidden
from cosify.functional.float64 import sum_dtype
from cosify.functional.fusion import fused
from cosify.functional.grid import expected_kappa, grid_or_default
from cosify.functional.search import Labelled, Scan, SoftmaxState, search_certified
from cosify.functional.search.blocks import WINDOW, fitting, kappas_in_trace
from cosify.functional.search.rounding import TIE, first_least, rounding_of, settle
from cosify.functional.similarity import full_precision, unit_rows

# The full grid is evaluated up to so many multiply-adds, 20 B C d: below, the bookkeeping of the search costs more than
# it saves. On a GPU the bookkeeping is some hundred launches, and products are cheap: at (256, 2048, 8142), 2^36
# multiply-adds, an H200 took 24 ms for the search and 3.5 ms for twenty softmaxes with their products.
GRID_WORK = {"cpu": 1 << 24, "cuda": 1 << 38}
PLAIN_NUMBERS = 1 << 17  # numbers, over all candidates, that one operation computes
PRODUCTS_TO_DIVIDE = 64  # to divide a class by its norm in float64 costs as much as so many products with it
# The local search walks from neighbour to neighbour, so a very fine grid is evaluated whole.
FINEST_GRID = 64


def energies(unit_embedding: Tensor, prototypes: Tensor, kappa: Tensor) -> Tensor:
    """Return Eq. (10) at kappa [n, 1] or [n, B], [n, B], for unit rows [B, d] and [C, d]."""
    cosine = unit_embedding @ prototypes.T  # Eq. (1)
    alpha = torch.softmax(kappa.unsqueeze(-1) * cosine, dim=-1)  # Eq. (2)
    average = alpha @ prototypes  # the softmax average of the prototypes
    # The norm is taken of the difference: the expanded form 1 - 2 s + |m|^2 cancels where the two nearly agree.
    return 0.5 * (unit_embedding - average).square().sum(dim=-1)  # Eq. (10)


def least(unit_embedding: Tensor, prototypes: Tensor, grid: Tensor, tie: float) -> Tensor:
    """Return the index [B] of the best of `grid` [K], by Eq. (11) as written; the first of those within `tie`."""
    room = kappas_in_trace(len(grid), len(prototypes))
    if not values_hidden():  # a trace should be short; otherwise the numbers should stay in the cache
        room = max(1, PLAIN_NUMBERS // max(1, len(unit_embedding) * sum(prototypes.shape)))
    some = grid.to(prototypes.dtype).unsqueeze(1).split(room)
    energy = [energies(unit_embedding, prototypes, kappa) for kappa in some]
    return first_least(torch.cat(energy), tie)  # Eq. (11)


@dataclass(frozen=True)
class LsSolution:
    """The minimiser of Eq. (10), and what finding it took.

    Attributes:
        kappa: [B], values of the grid.
        index: [B], their indices in it.
        softmax: the softmax at kappa, n = 1; Eq. (12) needs its average.  None if the route did not compute it.
        evaluations: products [B, C] x [C, d], a mean over samples.  In the certified search projections and float64
            comparisons count as one each.
        open_pairs: number of pairs (sample, candidate) evaluated after the walk: no bound ruled them out, or, on an
            accelerator, another one of the same sample.
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
        """Number of samples at the smallest and at the largest candidate; many mean that the grid is too narrow."""
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
        dtype = torch.promote_types(unit_embedding.dtype, prototypes.dtype)
        one = torch.as_tensor(kappa, dtype=dtype, device=embedding.device).reshape(1, -1)
        return energies(unit_embedding, prototypes, one)[0]


@overload
def ls_kappa(
    embedding: Tensor,
    weight: Tensor,
    grid: Tensor | None = None,
    *,
    start: float | None = None,
    chunk: int | None = None,
    process_group: ProcessGroup | None = None,
    return_info: Literal[False] = False,
) -> Tensor: ...


@overload
def ls_kappa(
    embedding: Tensor,
    weight: Tensor,
    grid: Tensor | None = None,
    *,
    start: float | None = None,
    chunk: int | None = None,
    process_group: ProcessGroup | None = None,
    return_info: Literal[True],
) -> LsSolution: ...


def ls_kappa(
    embedding: Tensor,
    weight: Tensor,
    grid: Tensor | None = None,
    *,
    start: float | None = None,
    chunk: int | None = None,
    process_group: ProcessGroup | None = None,
    return_info: bool = False,
) -> Tensor | LsSolution:
    """Return for each sample the kappa whose softmax average of prototypes lies nearest to the unit embedding.

    Kobayashi, Eqs. (10), (11) and (14).  No gradient flows: kappa is a constant of the backward pass.  The result is
    exact on a CPU, and on an accelerator where the search runs: candidates whose energies differ by no more than
    rounding are compared in float64, equal ones go to the smaller kappa.  There it does not depend on `start`, `chunk`,
    the split into batches or the number of processes.  In a graph, and where an accelerator evaluates the whole grid,
    candidates within float32's rounding may change places.

    Args:
        embedding: [B, d], any norm; a zero row gets the smallest candidate.
        weight: [C, d], any norm; of a process group this rank's rows, at least one.
        grid: [K] increasing candidates; default: `kappa_grid()`.
        start: where the search begins, such as the mean of an earlier batch; it changes the time, not the result.
        chunk: classes in a block; memory is O(B (chunk + d)), beside at most 16 MiB of kept cosines (512 MiB on a GPU).
            Default: what fits 1 MiB on a CPU, 256 MiB on a GPU.
        process_group: over which the classes are sharded; all ranks give the same embedding and get the same result.
        return_info: return an `LsSolution`, with evaluations, open pairs and edges beside kappa.

    Returns:
        [B], float32 (float64 for float64 inputs), values of the grid.

    Raises:
        ValueError: if shapes do not fit, the grid is not increasing, `chunk` is below 1, or a CPU input is not finite.
    """
    check_shapes(embedding, weight)
    check_chunk(chunk)
    grid = grid_or_default(grid, embedding.device)
    with torch.no_grad(), full_precision(embedding.device):
        scan = Scan.of(embedding, weight, chunk, process_group).stored()
        if start is None:
            num_classes = len(weight)
            if process_group is not None:
                num_classes = int(scan.shards.sum(torch.tensor(num_classes, device=weight.device)))
            start = expected_kappa(max(2, num_classes))
        found = search_ls(scan, grid, torch.tensor([start], device=grid.device))
        return found if return_info else found.kappa


@fused
def _nearest_candidate(grid: Tensor, start: Tensor) -> Tensor:
    """Return the index, [1], of the candidate that the median of some kappas is nearest to, on a logarithmic scale."""
    dtype = sum_dtype(grid.device)
    boundaries = (grid[1:].to(dtype) * grid[:-1].to(dtype)).sqrt()
    return torch.bucketize(start.to(dtype).median().reshape(1), boundaries)


Route = Literal["plain", "whole", "certified"]


def ls_route(scan: Scan, grid: Tensor) -> Route:
    """Choose how Eq. (11) is solved; every route gives the same kappa, up to the rounding that `search_ls` tells of.

    "plain", the equations as written: for small problems, because a search is some hundred short operations; under a
    trace (compile, export) and on the meta device, because a trace cannot follow steps that depend on values. "whole",
    all candidates in blocks of classes: on an accelerator, while that costs less than waiting for it; and for a grid
    that is too fine to walk, or has fewer candidates than the search begins with.  "certified" otherwise.
    """
    embedding, num_classes = scan.blocks.embedding, scan.blocks.num_classes
    if values_hidden() or embedding.is_meta:
        return "plain"
    on_cpu, products = embedding.device.type == "cpu", len(grid) * len(embedding)
    if on_cpu:
        products += PRODUCTS_TO_DIVIDE
    is_small = products * embedding.shape[1] * num_classes <= GRID_WORK.get(embedding.device.type, GRID_WORK["cuda"])
    if is_small and scan.shards.group is None:  # ranks may hold different numbers of classes, but must take one route
        return "plain" if on_cpu else "whole"
    return "certified" if WINDOW <= len(grid) <= FINEST_GRID else "whole"


@torch.no_grad()
def search_ls(scan: Scan, grid: Tensor, start: Tensor) -> LsSolution:
    """Return the minimiser of Eq. (10) over `grid` [K], starting at the median of the kappas `start` [n].

    On an accelerator, the routes "plain" and "whole" read no value, so nothing waits for it; there, candidates whose
    energies differ by less than float32's rounding are not compared again in float64.
    """
    route, blocks = ls_route(scan, grid), scan.blocks
    on_cpu, tie = blocks.embedding.device.type == "cpu", 2 * torch.finfo(blocks.embedding.dtype).eps
    evaluations, open_pairs, softmax = float(len(grid)), 0, None
    if route == "plain":
        if on_cpu and not values_hidden():
            blocks, tie = scan.in_float64(slice(None)).blocks, TIE
        index = least(blocks.embedding, blocks.classes.whole(), grid, tie)
    elif route == "whole":
        # As many candidates at once as a block has room for; ranks must make the same number of passes.
        num_rows, dim = blocks.embedding.shape
        size = 4 * max(1, num_rows) * max(dim, blocks.num_classes)  # of the softmax, or of the averages
        room = 1 if scan.shards.group is not None else max(WINDOW, fitting(size, grid.device))
        states = [scan.evaluate(kappa.unsqueeze(1))[0] for kappa in grid.split(room)]
        energy = torch.cat([state.energy for state in states])
        index = settle(scan, grid, energy)[0] if on_cpu else first_least(energy, tie)
        if len(states) == 1 and isinstance(scan.target, Labelled):  # the loss would compute it again
            softmax = states[0].pick(index)
    else:
        known = search_certified(scan, grid, _nearest_candidate(grid, start), rounding_of(scan, grid))
        index, compared = settle(scan, grid, known.energy)
        # A zero row has the same energy at every kappa, and no direction that the bounds could use.
        index = index.masked_fill(torch.linalg.vector_norm(blocks.embedding, dim=1) == 0, 0)
        # What has moved was compared, so that without a comparison nothing waits for a look.
        if compared > 0 or known.energy.dtype == torch.float64:
            moved = scan.shards.agreed(index != known.index).nonzero().squeeze(1)
            if len(moved) > 0:
                state, _ = scan.evaluate(grid[index[moved]].unsqueeze(0), moved)
                known.best.put(moved, state)
        evaluations = (known.products + compared) / max(len(index), 1)
        open_pairs, softmax = known.open_pairs, known.best
    kappa = grid.to(scan.blocks.embedding.dtype)[index]
    return LsSolution(kappa, index, softmax, evaluations, open_pairs, len(grid))
