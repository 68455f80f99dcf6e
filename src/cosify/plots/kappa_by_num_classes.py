"""kappa* against the number of classes: measured points beside the closed form of Eq. (11)."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cosify.errors import InputError
from cosify.functional.grid import least_kappa
from cosify.plots.style import finish, label_of, legend_below, look, new_figure, save

NEAR = 0.05  # distance of two points on logarithmic axes whose labels would overlap


def plot_kappa_by_num_classes(
    groups: Mapping[str, Mapping[str, tuple[int, float]]], output: Path | str, *, title: str
) -> Path:
    """Draw kappa* of several sets, each with its name, and the least value of the closed form as a curve.

    Args:
        groups: title of a group, such as "paper" -> name of a set -> number of classes and kappa*.
        output: PNG file.
        title: of the figure.

    Returns:
        The file.

    Raises:
        ValueError: if there is no set, or a number that is not positive.
    """
    points = [point for group in groups.values() for point in group.values()]
    if not points or any(num < 2 or not 0 < kappa < math.inf for num, kappa in points):
        raise InputError(f"points are {points}, expected at least one, of two classes or more and a kappa above 0")
    figure = new_figure(4.4)
    axis = figure.subplots()
    low, high = min(num for num, _ in points) / 2.5, max(num for num, _ in points) * 3
    classes = np.unique(np.geomspace(max(2, low), high, 60).round().astype(int))
    axis.plot(
        classes, [least_kappa(num) for num in classes], color="0.4", linestyle="--", label="least of the closed form"
    )
    for number, (name, group) in enumerate(groups.items()):
        style, label = look(number), label_of(name)
        axis.plot(
            *zip(*group.values(), strict=True), color=style.colour, marker=style.marker, linestyle="", label=label
        )
        right = number % 2 == 0
        aside = {"ha": "left" if right else "right", "va": "center", "textcoords": "offset points"}
        for place, text in _labels(group):
            axis.annotate(text, place, (6, -6) if right else (-6, 6), fontsize="x-small", **aside)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    _few_ticks(axis, [kappa for _, kappa in points])
    axis.set_xlim(low, high)
    finish(axis, title, "classes (log axis)", "kappa*, last epoch (log axis)")
    legend_below(figure, *axis.get_legend_handles_labels())
    return save(figure, output)


def _labels(group: Mapping[str, tuple[int, float]]) -> list[tuple[tuple[int, float], str]]:
    """Return places and names; sets that would be drawn over each other share a place."""
    labels: list[tuple[tuple[int, float], str]] = []
    for name, place in sorted(group.items(), key=lambda each: each[1]):
        if labels and math.dist(np.log(labels[-1][0]), np.log(place)) < NEAR:
            labels[-1] = (labels[-1][0], f"{labels[-1][1]}, {name}")
        else:
            labels.append((place, name))
    return labels


def _few_ticks(axis: object, kappas: Sequence[float]) -> None:
    ticks = [tick for tick in (2, 3, 5, 10, 20, 30, 50, 100, 150) if min(kappas) / 1.6 <= tick <= max(kappas) * 1.6]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])  # type: ignore[attr-defined]  # matplotlib's
    axis.minorticks_off()  # type: ignore[attr-defined]
