"""How the loss of one sample falls with its target cosine, for several kappa."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from cosify.functional import simplified_loss
from cosify.plots.checks import Floats, check_some
from cosify.plots.style import MEDIUM, SMALL, finish, label_of, look, new_figure, save

VANISHED = 0.01  # of the loss at 90 degrees
HIGHEST = 2.5  # in view, in units of the loss at 90 degrees; curves of a large kappa would flatten all others
DEGREES = (180, 150, 135, 120, 105, 90, 75, 60, 45, 30, 0)


def loss_curve(cosines: Floats, num_classes: int, kappa: float) -> Floats:
    """Return Eq. (15), nats, at `cosines` [N] in [-1, 1]."""
    values: Floats = simplified_loss(torch.from_numpy(cosines), num_classes, kappa).numpy()
    return values


def vanishing_cosine(num_classes: int, kappa: float, share: float = VANISHED) -> float:
    """Return z_y at which the loss has fallen to `share` of its value at 90 degrees, log C; above 1 if it never does.

    Eq. (15) solved for z_y: (log(C - 1) - log(C^share - 1)) / kappa.
    """
    return (math.log(num_classes - 1) - math.log(math.expm1(share * math.log(num_classes)))) / kappa


def plot_simplified_loss(num_classes: int, kappas: Mapping[str, float], output: Path | str) -> Path:
    """Draw the simplified loss against the target cosine, one curve for each kappa.

    Kobayashi, Figure 2, Eq. (15).  All curves meet at 90 degrees, where the loss is log C.  A marker shows where a
    curve falls below 1 % of that: from there on, a sample hardly pulls at its feature.

    Args:
        num_classes: C, at least 2.
        kappas: name -> kappa, > 0, dimensionless.
        output: PNG file.

    Returns:
        The file.

    Raises:
        ValueError: if there is no kappa, one is not above 0, or there are fewer than two classes.
    """
    check_some("kappas", kappas)
    cosines = np.linspace(-1, 1, 801)
    curves = {name: loss_curve(cosines, num_classes, float(kappa)) for name, kappa in kappas.items()}
    start = math.log(num_classes)

    figure = new_figure(4.6)
    axis = figure.subplots()
    for index, (name, kappa) in enumerate(kappas.items()):
        style, crossing = look(index), vanishing_cosine(num_classes, float(kappa))
        if crossing <= 1:
            end = f"below {VANISHED:.0%} from {math.degrees(math.acos(crossing)):.0f}\N{DEGREE SIGN}"
        else:
            end = f"{curves[name][-1] / start:.1%} left at 0\N{DEGREE SIGN}"
        # A name such as "kappa=60" says it already.
        value = "" if f"{kappa:g}" in re.findall(r"[\d.]+", name) else f", kappa = {kappa:.3g}"
        axis.plot(
            cosines,
            curves[name],
            color=style.colour,
            linestyle=style.line,
            linewidth=1.8,
            marker=style.marker if crossing <= 1 else None,
            markevery=[int(np.searchsorted(cosines, crossing))] if crossing <= 1 else None,
            markersize=8,
            label=label_of(f"{name}{value}: {end}"),
        )
    axis.axhline(start, color="black", linewidth=0.6, alpha=0.5)
    axis.annotate(
        f"log C = {start:.2f}", (0.995, start), xytext=(0, 3), textcoords="offset points", ha="right", fontsize=SMALL
    )
    finish(axis, f"Simplified loss, Eq. (15), C = {num_classes}", "target cosine z_y", "loss (nats)")
    axis.set_xlim(-1, 1)
    highest = min(HIGHEST * start, 1.05 * max(curve[0] for curve in curves.values()))
    axis.set_ylim(-0.025 * highest, highest)  # room for markers at 0
    top = axis.secondary_xaxis("top")
    top.set_xticks(np.cos(np.radians(DEGREES)), [f"{each}\N{DEGREE SIGN}" for each in DEGREES], fontsize=SMALL)
    top.set_xlabel("angle to the own classifier (degrees)", fontsize=MEDIUM)
    top.spines["top"].set_visible(False)
    never = all(vanishing_cosine(num_classes, float(kappa)) > 1 for kappa in kappas.values())
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        fontsize=SMALL,
        ncols=1 if max(map(len, labels)) > 50 else 2,
        title=None if never else f"marker: {VANISHED:.0%} of the loss at 90\N{DEGREE SIGN}, which is log C",
        title_fontsize=SMALL,
    )
    return save(figure, output)
