"""How far embeddings lie from their class and from all classes together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cosify.errors import InputError
from cosify.plots.checks import Floats, check_same_keys, check_some, finite
from cosify.plots.style import (
    FIRM_SPACE,
    MEDIUM,
    WIDTH,
    finish,
    label_of,
    legend_under,
    look,
    new_figure,
    save,
    wrapped,
)

NUM_BINS = 60
NOT_DEFINED = f"not defined: C{FIRM_SPACE}>={FIRM_SPACE}d"


def plot_angles(to_class: Mapping[str, ArrayLike], to_span: Mapping[str, ArrayLike], output: Path | str) -> Path:
    """Draw how the angles of Table 3 are distributed, one line for each model.

    Kobayashi, Table 3: the angle to the weight of the feature's class, and the one to the subspace that all class
    weights span.  With as many classes as dimensions that subspace is the whole space.

    Args:
        to_class: model -> degrees [N] in [0, 180].
        to_span: model -> degrees [N] in [0, 90], or [0] where it is not defined, C >= d.
        output: PNG file.

    Returns:
        The file.

    Raises:
        ValueError: if there is no model, the two differ in models, `to_class` is empty, or an angle is NaN or out of
            range.
    """
    check_some("to_class", to_class)
    check_same_keys("to_class", to_class, "to_span", to_span)
    own = {name: _degrees(f"to_class[{name!r}]", values, 180) for name, values in to_class.items()}
    span = {name: _degrees(f"to_span[{name!r}]", values, 90) for name, values in to_span.items()}

    names = [wrapped(f"{name}: {NOT_DEFINED}", WIDTH / 2 - 1) for name in own]
    figure = new_figure(3.4 + 0.16 * sum(1 + name.count("\n") for name in names))
    left, right = figure.subplots(1, 2)
    _panel(left, own, "to the own class weight")
    _panel(right, span, "to the span of all class weights")
    figure.suptitle("Angle of the embeddings", fontsize=MEDIUM)
    return save(figure, output)


def angle_edges(angles: Mapping[str, Floats]) -> Floats:
    """Return edges of bins in degrees, common to all models: from the smallest to the largest angle, at least 1."""
    every = np.concatenate(list(angles.values()))
    low, high = float(every.min()), float(every.max())
    return np.linspace(low, max(high, low + 1), NUM_BINS + 1)


def _degrees(name: str, values: ArrayLike, most: int) -> Floats:
    array = finite(name, values, empty=most == 90)
    if array.size and (array.min() < 0 or array.max() > most):
        raise InputError(
            f"{name} holds {array.min():.4g} to {array.max():.4g}, expected 0 to {most} degrees; call np.degrees once"
        )
    return array


def _panel(axis: Any, angles: Mapping[str, Floats], title: str) -> None:
    defined = {name: values for name, values in angles.items() if values.size > 0}
    edges = angle_edges(defined) if defined else np.linspace(0, 90, NUM_BINS + 1)
    for index, (name, values) in enumerate(angles.items()):
        style = look(index)
        end = f"mean {values.mean():.1f}\N{DEGREE SIGN}" if name in defined else NOT_DEFINED
        heights = np.histogram(values, edges, density=True)[0] if name in defined else np.full(NUM_BINS, np.nan)
        axis.stairs(
            heights,
            edges,
            color=style.colour,
            linestyle=style.line,
            linewidth=1.6,
            label=label_of(wrapped(f"{name}: {end}", WIDTH / 2 - 1)),
        )
    if not defined:
        axis.text(0.5, 0.5, NOT_DEFINED, transform=axis.transAxes, ha="center", va="center", fontsize=MEDIUM)
        axis.set(yticks=[], ylim=(0, 1))
    axis.set_xlim(edges[0], edges[-1])
    axis.set_ylim(bottom=0)
    finish(axis, title, "angle (degrees)", "density (per degree)")
    legend_under(axis)
