"""Whether a model is right as often as it is confident."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from cosify.errors import InputError
from cosify.evaluation.calibration_error import Bins, reliability_bins
from cosify.plots.checks import check_some, finite
from cosify.plots.style import MEDIUM, PALETTE, finish, grid_of, legend_below, new_figure, save, width_of, wrapped

ROUNDING = 1e-5  # by which a softmax in half precision or float32 exceeds 1
BLUE, RED = PALETTE[0], PALETTE[1]


def plot_reliability(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]], output: Path | str, *, num_bins: int = 15
) -> Path:
    """Draw accuracy against confidence, and how often each confidence occurs, one panel for each model.

    The bar beyond 1, where there is one, is of the samples with a confidence of 1, which float64 cannot tell from it.

    Args:
        curves: model -> (confidence [N] in [0, 1], correct, bool [N]).
        output: PNG file.
        num_bins: of equal width.

    Returns:
        The file.

    Raises:
        ValueError: if there is no model, fewer than one bin, no sample, NaN, a confidence outside [0, 1], lengths that
            differ, or another type than bool.
    """
    check_some("curves", curves)
    bins = {}
    for name, (confidence, correct) in curves.items():
        try:
            bins[name] = reliability_bins(*_checked(confidence, correct), num_bins)
        except ValueError as error:
            raise InputError(f"curves[{name!r}]: {error}") from None
    rows, columns = grid_of(len(bins))
    width = width_of(columns)
    figure = new_figure(rows * (width / columns * 1.3 if columns > 1 else 5.4) + 0.8, width)
    axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[3, 1] * rows)
    for index in range(rows * columns):
        row, column = divmod(index, columns)
        upper, lower = axes[2 * row, column], axes[2 * row + 1, column]
        if index >= len(bins):
            upper.set_visible(False)
            lower.set_visible(False)
            continue
        name, of_model = list(bins.items())[index]
        drawn = _panel(upper, lower, of_model, first=column == 0)
        upper.set_title(wrapped(name, width / columns - 0.5) + f"\nECE {of_model.ece:.2%}", fontsize=MEDIUM - 0.5)
    title = f"Reliability, {num_bins} bins of equal width"
    if any(of_model.counts[-1] > 0 for of_model in bins.values()):
        title += "; beyond them the samples of confidence 1"
    figure.suptitle(title, fontsize=MEDIUM)
    legend_below(
        figure, drawn, ["accuracy", "gap to mean confidence", "perfect calibration", "mean confidence of all samples"]
    )
    return save(figure, output)


def _checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[Tensor, Tensor]:
    values, right = finite("confidence", confidence), np.asarray(correct)
    if right.dtype != np.bool_:
        raise InputError(f"correct is {right.dtype}, expected bool; pass predictions == labels")
    if right.shape != values.shape:
        raise InputError(
            f"correct has shape {list(right.shape)} and confidence {list(values.shape)}, expected the same; pass both"
            " for each sample"
        )
    if values.min() < 0 or values.max() > 1 + ROUNDING:
        raise InputError(
            f"confidence holds {values.min():.4g} to {values.max():.4g}, expected 0 to 1; pass probabilities"
        )
    return torch.from_numpy(values), torch.from_numpy(right)


def _panel(upper: Any, lower: Any, bins: Bins, first: bool) -> list[Any]:
    from matplotlib.ticker import PercentFormatter

    width = 1 / (len(bins.counts) - 1)
    used = bins.counts.numpy() > 0
    counts, accuracy, mean = (each.numpy()[used] for each in (bins.counts, bins.accuracy, bins.confidence))
    left = np.arange(len(used))[used] * width
    bars = upper.bar(left, accuracy, width, align="edge", facecolor=BLUE, edgecolor="white", linewidth=0.5)
    gaps = upper.bar(
        *(left, np.abs(mean - accuracy), width, np.minimum(mean, accuracy)),
        align="edge",
        facecolor=(1, 1, 1, 0.45),
        edgecolor=RED,
        hatch="////",
        linewidth=0.8,
    )
    (diagonal,) = upper.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1)
    lower.bar(left, counts / counts.sum(), width, align="edge", facecolor="0.6", edgecolor="white")
    overall = lower.axvline(float((counts * mean).sum() / counts.sum()), color="black", linestyle=":")
    finish(upper, "", "", "accuracy" if first else "")
    finish(lower, "", "confidence", "samples" if first else "")
    for axis in (upper, lower):
        axis.set(xlim=(0, 1 + width * used[-1]), xticks=[0, 0.25, 0.5, 0.75, 1])
    upper.set_ylim(0, 1)
    upper.tick_params(labelbottom=False)
    lower.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    lower.xaxis.set_major_formatter("{x:g}")
    return [bars, gaps, diagonal, overall]
