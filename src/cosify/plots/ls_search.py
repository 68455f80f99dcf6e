"""How the search for kappa rules candidates out: energy of one feature, candidates evaluated, and bounds."""

from pathlib import Path

import torch
from torch import Tensor

from cosify.errors import InputError
from cosify.functional import kappa_grid
from cosify.functional.checks import check_kappa
from cosify.functional.search import Scan, search_certified
from cosify.functional.search.bounds import SpanBounds, bound_above, bound_below
from cosify.functional.search.rounding import rounding_of
from cosify.functional.search.softmax import others
from cosify.plots.style import PALETTE, finish, legend_below, new_figure, save


@torch.no_grad()
def plot_ls_search(embedding: Tensor, weight: Tensor, start: float, output: Path | str) -> Path:
    """Draw Eq. (10) at every candidate for one feature, and what the certified search computed of it.

    Kobayashi, Eqs. (10), (11) and (14).

    Args:
        embedding: [d], any norm.
        weight: [C, d], any norm.
        start: kappa where the search begins.
        output: PNG file.

    Returns:
        The file.

    Raises:
        ValueError: if shapes do not fit, a number is not finite, or `start` is not above zero.
    """
    if embedding.ndim != 1:
        raise InputError(f"embedding has shape {list(embedding.shape)}, expected [d], one sample; index it")
    check_kappa(start, 1)
    scan, grid = Scan.of(embedding.unsqueeze(0), weight), kappa_grid()
    begin = (grid - start).abs().argmin().reshape(1)
    known = search_certified(scan, grid, begin, rounding_of(scan, grid))
    energy = scan.evaluate(grid.unsqueeze(1))[0].energy[:, 0]
    # The walk is the run of evaluated candidates around its start.
    evaluated, low, high = known.energy[:, 0].isfinite(), int(begin), int(begin)
    while low > 0 and evaluated[low - 1]:
        low -= 1
    while high < len(grid) - 1 and evaluated[high + 1]:
        high += 1
    ends = [low, min(high + 1, len(grid) - 1), low + int(energy[low : high + 1].argmin())]
    state, _ = scan.evaluate(grid[ends].unsqueeze(1))
    share = others(scan.target, state.kappa[1], state.nearest[1], state.mass[1], state.log_odds[1])
    bounds = torch.full_like(energy, torch.nan)
    bounds[:low], bounds[high + 1 :] = bound_below(scan.inner(state, 0)), bound_above(state.nearest[1], share)
    everything = torch.ones(len(grid), 1, dtype=torch.bool)
    span = SpanBounds(scan, grid, torch.tensor([0]), state.nearest[0], range(len(grid)))
    projected = span.add(scan.mean(state, 2), everything)[:, 0]
    projected = torch.where(evaluated, torch.nan, projected)

    figure = new_figure(3.8)
    axis = figure.subplots()
    kappa, best = grid.numpy(), known.best.energy.item()
    blue, red, green, *_ = PALETTE
    axis.axhline(best, color="black", linewidth=0.6, alpha=0.6)
    axis.plot(kappa, energy.numpy(), color="0.7", linewidth=1.2, marker=".", label="energy, Eq. (10), never computed")
    axis.plot(kappa, projected.numpy(), "^", color=green, markersize=5, label="bound by projection on x and m")
    axis.plot(
        kappa, bounds.numpy(), "_", color=red, markersize=11, markeredgewidth=2, label="bound from the walk's ends"
    )
    axis.plot(kappa[evaluated], energy.numpy()[evaluated], "o", color=blue, markersize=7, label="evaluated")
    axis.set_xscale("log")
    axis.set_xticks([0.2, 1, 5, 20, 100], ["0.2", "1", "5", "20", "100"])
    axis.set_ylim(0, 1.08 * float(energy.max()))
    finish(axis, f"kappa* = {float(grid[known.index]):.1f} after {known.products} of 20 products", "kappa", "energy")
    legend_below(figure, *axis.get_legend_handles_labels())
    return save(figure, output)
