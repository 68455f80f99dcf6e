"""Verification in one figure: how many pairs of one person pass as the threshold falls, and the cosines behind it."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from cosify.errors import InputError
from cosify.evaluation import Verification
from cosify.plots.checks import Floats, finite
from cosify.plots.detection import bar_limits, common_edges, density
from cosify.plots.style import (
    MEDIUM,
    PALETTE,
    WIDTH,
    finish,
    legend_under,
    look,
    new_figure,
    save,
    wrapped,
)

LARGE = 60  # points of the marks on the curve, squared


def plot_verification(
    cosine: ArrayLike, same: ArrayLike, found: Verification, output: Path | str, *, title: str
) -> Path:
    """Draw the ROC curve of pairs, and the distribution of their cosines.

    The axis of false accepts is logarithmic and begins at one pair.  That of true accepts begins below the lowest, not
    at 0 where that is far, and says so.  Bins span the 0.5 to 99.5 percentile of both kinds of pairs.

    Args:
        cosine: [N], of each pair.
        same: bool [N], whether it shows one person.
        found: what `verify_pairs` measured of these.
        output: PNG file.
        title: which model, and which pairs.

    Returns:
        The file.

    Raises:
        ValueError: for NaN, lengths that differ, or pairs of one kind alone.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    cosines, truth = finite("cosine", cosine), np.asarray(same)
    if truth.shape != cosines.shape or truth.dtype != np.bool_ or truth.all() or not truth.any():
        raise InputError(
            f"same has shape {list(truth.shape)} of {truth.dtype}, expected {list(cosines.shape)} of bool with both"
            " true and false; pass what verify_pairs took"
        )
    rates, shares = roc_points(cosines[truth], cosines[~truth])
    low, _ = bar_limits(np.array([shares[0], 1.0]))
    figure = new_figure(4.3)
    curve, histogram = figure.subplots(1, 2)
    curve.plot(rates, shares, drawstyle="steps-post", color=PALETTE[0], linewidth=1.6)
    marks = {f"EER {found.eer:.2%}": (found.eer, 1 - found.eer)}
    marks |= {f"TAR {share:.2%} at FAR {rate:.2g}": (rate, share) for rate, share in found.tar.items()}
    for index, (label, point) in enumerate(marks.items(), 1):
        at = point if rates[0] <= point[0] else (np.nan, np.nan)  # an error rate of 0 has no place on the axis
        colour, marker = look(index).colour, look(index).marker
        curve.scatter(*at, s=LARGE, c=colour, marker=marker, label=label, zorder=3, clip_on=False)
    curve.set(xscale="log", xlim=(rates[0], 1), ylim=(low, 1 + 0.02 * (1 - low)))
    curve.yaxis.set_major_formatter(PercentFormatter(1.0))
    start = "" if low == 0 else f" (axis starts at {100 * low:.4g}%, not 0)"
    finish(curve, f"ROC curve, AUC {found.auc:.4f}", "false accepts, log axis", f"true accepts{start}")
    legend_under(curve)
    groups = {"one person": cosines[truth], "two people": cosines[~truth]}
    edges = common_edges(groups)
    for index, (name, values) in enumerate(groups.items()):
        style, label = look(index), f"{name} (n = {len(values)})"
        line = {"color": style.colour, "linestyle": style.line, "linewidth": 1.6}
        histogram.stairs(density(values, edges), edges, label=label, **line)
    threshold = float(np.mean(found.fold_thresholds))
    label = f"threshold, mean {threshold:.3f}"
    if edges[0] <= threshold <= edges[-1]:
        histogram.axvline(threshold, color="black", linestyle=":", label=label)
    else:
        histogram.plot([], [], color="black", linestyle=":", label=f"{label}, out of view")
    histogram.set_ylim(bottom=0)
    histogram.xaxis.set_major_locator(MaxNLocator(4))
    finish(histogram, "Cosine of pairs", "cosine", "density")
    legend_under(histogram)
    num_pairs = found.num_same + found.num_different
    accuracy = f"accuracy {found.accuracy:.2%} ± {found.standard_error:.2%} of {num_pairs} pairs"
    figure.suptitle(f"{wrapped(title, WIDTH - 1)}\n{accuracy}", fontsize=MEDIUM)
    return save(figure, output)


def roc_points(same: Floats, different: Floats) -> tuple[Floats, Floats]:
    """Return rates of false accepts from one pair on, ascending, and the largest share of true accepts at each.

    Args:
        same: cosines of pairs of one person.
        different: those of pairs of two people.
    """
    descending = np.sort(different)[::-1]
    accepted = np.arange(1, len(different) + 1)
    # With k false accepts allowed, all above the next cosine pass; with all allowed, everything does.
    thresholds = np.append(descending[1:], -np.inf)
    shares = 1 - np.searchsorted(np.sort(same), thresholds, side="right") / len(same)
    return accepted / len(different), shares
