"""Kappa over the epochs of several heads, Figure 1."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cosify.errors import InputError
from cosify.plots.style import finish, label_of, legend_below, look, new_figure, save


def plot_kappa_epochs(kappas: Mapping[str, Sequence[float]], output: Path | str, *, title: str) -> Path:
    """Draw the mean kappa of each epoch's training samples, one line for each head.

    Kobayashi, Figure 1.

    Args:
        kappas: head -> kappa of epochs 1, 2, ..., > 0, dimensionless; heads may differ in length.
        output: PNG file.
        title: what was trained.

    Returns:
        The file.

    Raises:
        ValueError: if there is no head, or one has no epoch.
    """
    empty = [name for name, values in kappas.items() if len(values) == 0]
    if empty or not kappas:
        raise InputError(
            f"no kappa came for {empty or 'any head'}, expected one for each epoch; train with a cosine head"
        )
    figure = new_figure(3.6)
    axis = figure.subplots()
    for index, (name, values) in enumerate(kappas.items()):
        style = look(index)
        label = label_of(f"{name}: {values[-1]:.3g} at the end")
        epochs = range(1, len(values) + 1)
        axis.plot(
            epochs, values, color=style.colour, linestyle=style.line, marker=style.marker, markersize=3, label=label
        )
    axis.set_yscale("log")
    finish(axis, title, "epoch", "mean kappa (log axis)")
    legend_below(figure, *axis.get_legend_handles_labels())
    return save(figure, output)
