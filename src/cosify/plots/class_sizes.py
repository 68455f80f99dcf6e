"""Accuracy of classes against the number of their training images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from cosify.errors import InputError
from cosify.evaluation.long_tail import FEW, MANY
from cosify.evaluation.rows import to_float64
from cosify.plots.checks import check_some
from cosify.plots.style import finish, label_of, legend_below, look, new_figure, save

GROUPS = 10  # of classes, at most, that a curve has a point for


@dataclass(frozen=True, eq=False)
class ClassAccuracies:
    """Classes of a model.

    Attributes:
        train_counts: [C], training images of each class.
        accuracy: [C], in [0, 1]; NaN for a class without test images.
    """

    train_counts: ArrayLike
    accuracy: ArrayLike


def plot_class_sizes(models: Mapping[str, ClassAccuracies], output: Path | str) -> Path:
    """Draw each class as a point, and means over classes of about as many training images as a curve.

    Args:
        models: by title, at least one.
        output: PNG file.

    Returns:
        The file.

    Raises:
        ValueError: if there is no model, or a model has no class with training images and an accuracy.
    """
    from matplotlib.ticker import LogFormatter

    check_some("models", models)
    figure = new_figure(3.6)
    axis = figure.subplots()
    smallest, largest = np.inf, 0.0
    for number, (name, found) in enumerate(models.items()):
        counts, accuracy = to_float64(found.train_counts), to_float64(found.accuracy)
        known = ~np.isnan(accuracy) & (counts > 0)
        if not known.any():
            raise InputError(f"{name} has no class with training images and an accuracy, expected one; leave it out")
        sizes, values = counts[known], 100 * accuracy[known]
        style = look(number)
        axis.plot(sizes, values, ".", color=style.colour, alpha=0.25, markersize=4)
        parts = np.array_split(np.argsort(sizes, kind="stable"), min(GROUPS, len(sizes)))
        centres = [float(np.exp(np.log(sizes[part]).mean())) for part in parts]
        means = [float(values[part].mean()) for part in parts]
        axis.plot(centres, means, color=style.colour, marker=style.marker, linestyle=style.line, label=label_of(name))
        smallest, largest = min(smallest, *sizes), max(largest, *sizes)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(LogFormatter())  # within a decade
    low, high = smallest / 1.2, largest * 1.2
    axis.axvspan(low, min(FEW, high), color="0.5", alpha=0.12, linewidth=0)
    axis.axvspan(max(MANY, low), max(MANY, high), color="0.5", alpha=0.06, linewidth=0)
    axis.set_xlim(low, high)
    axis.set_ylim(-3, 103)
    finish(
        axis, "Classes with few and with many training images", "training images of the class (log axis)", "accuracy, %"
    )
    legend_below(figure, *axis.get_legend_handles_labels())
    return save(figure, output)
