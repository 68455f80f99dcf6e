"""How kappa* is distributed: over classes, and over the candidates of its search."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cosify.errors import InputError
from cosify.functional import kappa_grid
from cosify.heads.kappa_statistics import KappaStatistics, KappaSummary
from cosify.plots.checks import Floats, check_some, class_indices, finite
from cosify.plots.style import MEDIUM, PALETTE, SMALL, WIDTH, finish, look, new_figure, save, wrapped

LONGEST_NAME = 34  # characters; ImageNet lists synonyms
PERCENTILES = (10, 90)
KAPPA_STAR = "kappa*"
CENTRED = {"ha": "center", "va": "center", "fontsize": SMALL, "style": "italic"}


def kappa_by_class(kappa: Floats, labels: ArrayLike) -> tuple[NDArray[np.int64], Floats]:
    """Return the classes that have samples, [K], and mean, 10 and 90 percentile of kappa [N] in each, [K, 3].

    The smallest mean comes first; of equal ones, the smaller label.
    """
    classes, place = np.unique(np.asarray(labels), return_inverse=True)
    of_class = (kappa[place == each] for each in range(len(classes)))
    found = np.array([(values.mean(), *np.percentile(values, PERCENTILES)) for values in of_class])
    order = np.argsort(found[:, 0], kind="stable")
    return classes[order], found[order]


def plot_kappa_by_class(
    kappa: ArrayLike, labels: ArrayLike, label_names: Sequence[str], output: Path | str, *, show: int = 15
) -> Path:
    """Draw the mean kappa* of each class, largest on top, with its 10 to 90 percentile.

    Args:
        kappa: [N], > 0, dimensionless.
        labels: class indices [N] in [0, number of names).
        label_names: name of each class; one without samples is left out.
        output: PNG file.
        show: at least 1; of more than `2 * show` classes only the `show` lowest and the `show` highest are drawn.

    Returns:
        The file.

    Raises:
        ValueError: for no sample, NaN, a kappa that is not above 0, lengths that differ or labels out of range.
    """
    values = _kappas("kappa", kappa)
    if show < 1:
        raise InputError(f"show is {show}, expected at least 1, such as 15")
    classes, found = kappa_by_class(values, class_indices("labels", labels, len(values), label_names))
    left_out = len(classes) - 2 * show
    title = f"Mean {KAPPA_STAR} by class, with 10 to 90 percentile"
    shown = np.arange(len(classes))
    if left_out > 0:
        title += f"\nthe {show} lowest and {show} highest of {len(classes)} classes"
        shown = np.delete(shown, slice(show, -show))
    # One line stays free where classes were left out.
    at = np.arange(len(shown)) + (np.arange(len(shown)) >= show) * (left_out > 0)
    mean, low, high = found[shown].T

    figure = new_figure(1.5 + 0.2 * (at[-1] + 1))
    axis = figure.subplots()
    axis.hlines(at, low, high, color=PALETTE[5], linewidth=4, label="10 to 90 percentile")
    axis.plot(mean, at, "o", color=PALETTE[0], markersize=5, label="mean of the class")
    overall = f"mean of all samples, {values.mean():.2f}"
    axis.axvline(values.mean(), color=PALETTE[1], linestyle="--", linewidth=1.2, label=overall)
    if left_out > 0:
        axis.text(0.5, show, f"{left_out} classes between", transform=axis.get_yaxis_transform(), **CENTRED)
    finish(axis, title, f"{KAPPA_STAR} (dimensionless)", "", grid="x")
    names = [shortened(label_names[label]) for label in classes[shown]]
    axis.set_yticks(at, names)
    axis.set_ylim(-0.7, at[-1] + 0.7)
    figure.legend(loc="outside lower center", ncols=3, fontsize=SMALL)
    return save(figure, output)


def shortened(name: str) -> str:
    """Return a name of at most LONGEST_NAME characters."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3].rstrip(' ,')}..."


def plot_kappa_histogram(kappas: Mapping[str, ArrayLike], output: Path | str) -> Path:
    """Draw the share of samples at each candidate for kappa, one row for each model.

    Kobayashi, Eq. (14).  A kappa between candidates counts for the nearest on a log scale.

    Args:
        kappas: model -> [N], > 0, dimensionless.
        output: PNG file.

    Returns:
        The file.

    Raises:
        ValueError: if there is no model, no sample, or a kappa is NaN or not above 0.
    """
    from matplotlib.ticker import NullLocator, PercentFormatter

    check_some("kappas", kappas)
    models = {name: _summary(_kappas(f"kappas[{name!r}]", values)) for name, values in kappas.items()}
    grid = kappa_grid().double().numpy()
    step = float(np.sqrt(grid[1] / grid[0]))
    shares = {name: np.array(model.histogram) / sum(model.histogram) for name, model in models.items()}
    titles = {}
    for name, model in models.items():
        edges = f"at the edges of the grid: {model.low_edge:.1%} low, {model.high_edge:.1%} high"
        titles[name] = wrapped(f"{name}: mean {model.mean:.2f}, {edges}", WIDTH - 1)
    more_lines = sum(title.count("\n") for title in titles.values())
    figure = new_figure(1.3 + (1.15 if len(models) > 1 else 2.2) * len(models) + 0.16 * more_lines)
    axes = figure.subplots(len(models), 1, squeeze=False, sharex=True, sharey=True).ravel()
    for index, (axis, (name, model)) in enumerate(zip(axes, models.items(), strict=True)):
        # Bars end half a step from their candidate; on a log axis all are equally wide.
        left, right = grid / step**0.9, grid * step**0.9
        axis.bar(left, shares[name], right - left, align="edge", **look(index).bar)
        axis.axvline(model.mean, color="black", linestyle="--", linewidth=1.2, label=f"mean {model.mean:.2f}")
        axis.set_xscale("log")
        finish(axis, "", "", "samples", grid="y")
        axis.set_title(titles[name], fontsize=SMALL, loc="left")
    axes[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes[0].set(ylim=(0, 1.05 * np.max([*shares.values()])), xlim=(grid[0] / step**1.5, grid[-1] * step**1.5))
    axes[-1].set_xticks(grid[::2], [f"{candidate:.3g}" for candidate in grid[::2]])
    axes[-1].xaxis.set_minor_locator(NullLocator())
    axes[-1].set_xlabel("kappa (dimensionless, candidates of Eq. (14), log axis)", fontsize=MEDIUM)
    figure.suptitle("Share of samples at each candidate; dashed: mean", fontsize=MEDIUM)
    return save(figure, output)


def _kappas(name: str, values: ArrayLike) -> Floats:
    array = finite(name, values)
    if array.min() <= 0:
        raise InputError(f"{name} holds {array.min():.4g}, expected kappa > 0; pass kappa = 1 / temperature")
    return array


def _summary(kappa: Floats) -> KappaSummary:
    """Count kappa [N] by its nearest candidate, as metrics.jsonl does."""
    statistics = KappaStatistics(torch.device("cpu"))
    statistics.update(torch.from_numpy(kappa))
    summary = statistics.summary()
    assert summary is not None
    return summary
