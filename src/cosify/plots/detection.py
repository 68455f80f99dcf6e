"""Detection of misclassified and out-of-distribution samples: its quality as bars, and the scores behind it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cosify.errors import InputError
from cosify.plots.checks import Floats, check_some, finite
from cosify.plots.style import (
    CHARACTER,
    MEDIUM,
    SMALL,
    WIDTH,
    finish,
    grid_of,
    label_of,
    legend_below,
    legend_under,
    look,
    new_figure,
    save,
    width_of,
    wrapped,
)

Values = Mapping[str, Mapping[str, tuple[float, float, float]]]

MOST_LABELS, MOST_FLAT_LABELS = 48, 16  # bars, at most, with a number above each, and with one that lies flat
NUM_BINS = 40
PERCENTILES = (0.5, 99.5)  # a few extreme scores would squeeze all others into one bin


def plot_detection_bars(values: Values, output: Path | str, *, quantity: str, title: str) -> Path:
    """Draw a group of bars for each score, one for each model, with its confidence interval.

    Kobayashi, Figure 4.  The axis starts below the lowest interval, not at 0, and says so.

    Args:
        values: score -> model -> (value, low, high), fractions; a model without that score has no bar.
        output: PNG file.
        quantity: what `value` is, such as "AP".
        title: what is detected, such as "misclassified samples of ImageNet val".

    Returns:
        The file.

    Raises:
        ValueError: if there is nothing to draw, a value is NaN, or an interval's ends are in the wrong order.
    """
    check_some("values", values)
    for score, of_score in values.items():
        check_some(f"values[{score!r}]", of_score)
        for model, triple in of_score.items():
            name = f"values[{score!r}][{model!r}]"
            if finite(name, triple).shape != (3,) or triple[1] > triple[2]:
                raise InputError(f"{name} is {tuple(triple)}, expected (value, low, high) with low <= high; reorder it")
    models = list(dict.fromkeys(model for of_score in values.values() for model in of_score))
    every = np.array([triple for of_score in values.values() for triple in of_score.values()], dtype=np.float64)
    low, high = bar_limits(every)

    figure = new_figure(4.2)
    axis = figure.subplots()
    bar = 0.84 / max(len(models), 2)
    handles: dict[str, Any] = {}
    for group, of_score in enumerate(values.values()):
        for index, model in enumerate(models):
            if model not in of_score:
                continue
            value, lower, upper = of_score[model]
            at = group + (index - (len(models) - 1) / 2) * bar
            handles[model] = axis.bar(at, value - low, bar * 0.92, bottom=low, **look(index).bar)
            # From end to end: a bootstrap interval need not contain the value.
            middle, half = (upper + lower) / 2, (upper - lower) / 2
            axis.errorbar(at, middle, half, fmt="none", ecolor="black", elinewidth=1.2, capsize=min(3, 30 * bar))
            if len(every) <= MOST_LABELS:
                axis.annotate(
                    f"{value:.3f}".replace("0.", ".", 1) if 0 < value < 1 else f"{value:.3g}",
                    (at, max(value, upper)),
                    xytext=(0, 3),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    rotation=0 if len(every) <= MOST_FLAT_LABELS else 90,
                    fontsize=SMALL,
                )
    start = "" if low == 0 else f" (axis starts at {low:.3g}, not 0)"
    finish(axis, f"{quantity}: {title}", "", quantity + start, grid="y")
    # Numbers above the bars need room of their own.
    room = 0.1 if len(every) <= MOST_FLAT_LABELS else 0.17 if len(every) <= MOST_LABELS else 0.02
    axis.set_ylim(low, high + room * (high - low))
    axis.set_xlim(-0.5, len(values) - 0.5)
    axis.set_xticks(range(len(values)), [wrapped(score, 0.88 * WIDTH / len(values)) for score in values])
    legend_below(figure, [handles[model] for model in models], models)
    return save(figure, output)


def bar_limits(triples: Floats) -> tuple[float, float]:
    """Return the range of an axis for [N, 3] values, lows and highs: a round start below them, 0 if that is near."""
    lowest, highest = float(triples.min()), float(triples.max())
    span = max(highest - lowest, 1e-3)
    step = 10.0 ** math.floor(math.log10(span))
    start = math.floor((lowest - 0.25 * span) / step + 1e-9) * step
    # A start that saves little would only mislead; a negative value has no other choice.
    if lowest >= 0 and start < 0.4 * highest:
        start = 0.0
    return round(start, 9), highest


def plot_score_histograms(panels: Mapping[str, Mapping[str, ArrayLike]], output: Path | str, *, score: str) -> Path:
    """Draw how a score is distributed in each group of samples, one panel for each model.

    Bins of a panel are common to its groups and span the 0.5 to 99.5 percentile of each of them; what lies beyond
    counts in n and in the density, and is not drawn.

    Args:
        panels: model -> group ("correct", "misclassified", an OOD set) -> scores [N].
        output: PNG file.
        score: name of the score, with its unit if it has one.

    Returns:
        The file.

    Raises:
        ValueError: if there is no model, no group, no sample in a group, or a score is NaN or infinite.
    """
    check_some("panels", panels)
    for model, groups in panels.items():
        check_some(f"panels[{model!r}]", groups)
    scores = {
        model: {group: finite(f"panels[{model!r}][{group!r}]", array) for group, array in groups.items()}
        for model, groups in panels.items()
    }
    order = list(dict.fromkeys(group for groups in scores.values() for group in groups))
    rows, columns = grid_of(len(scores), most=2)
    width = width_of(columns)
    labels = {
        model: {group: wrapped(f"{group} (n = {len(array)})", width / columns - 0.9) for group, array in groups.items()}
        for model, groups in scores.items()
    }
    legends = ["\n".join(of_model.values()).splitlines() for of_model in labels.values()]
    longest = max(len(line) for lines in legends for line in lines)
    legend_columns = 2 if columns == 1 and 2 * (longest * CHARACTER + 0.6) < width else 1
    most_lines = max(map(len, legends))
    figure = new_figure(rows * (2.5 + 0.16 * -(-most_lines // legend_columns)) + 0.3, width)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (model, groups) in zip(axes, scores.items(), strict=False):
        edges = common_edges(groups)
        for group, array in groups.items():
            style = look(order.index(group))
            axis.stairs(
                density(array, edges),
                edges,
                color=style.colour,
                linestyle=style.line,
                linewidth=1.6,
                label=label_of(labels[model][group]),
            )
        axis.set_ylim(bottom=0)
        finish(axis, wrapped(model, width / columns - 0.6), score, "density")
        legend_under(axis, legend_columns)
    for axis in axes[len(scores) :]:
        axis.set_visible(False)
    figure.suptitle(f"Distribution of {score}, 0.5 to 99.5 percentile of each group", fontsize=MEDIUM)
    return save(figure, output)


def common_edges(groups: Mapping[str, Floats]) -> Floats:
    """Return edges of bins for all groups, [NUM_BINS + 1]; they span 1 around the value where all are equal."""
    # Of each group, not of all samples together: a large OOD set would cut a small group where it matters.
    limits = np.array([np.percentile(values, PERCENTILES) for values in groups.values()])
    low, high = float(limits[:, 0].min()), float(limits[:, 1].max())
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, NUM_BINS + 1)


def density(values: Floats, edges: Floats) -> Floats:
    """Return the density [number of bins] of values [N]: its area is the share of them within the edges."""
    counts, _ = np.histogram(values, edges)
    shares: Floats = counts / (len(values) * np.diff(edges))
    return shares
