"""Accuracy against a fixed kappa, beside heads that need none: Table 2 as a picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cosify.errors import InputError
from cosify.plots.style import finish, label_of, legend_below, look, new_figure, save


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a head over seeds.

    Attributes:
        mean: in [0, 1].
        deviation: standard deviation over seeds, in [0, 1]; 0 for one seed.
        kappa: of the last epoch's training samples; None for a softmax head.
    """

    mean: float
    deviation: float
    kappa: float | None


def plot_accuracy_by_kappa(
    fixed: Mapping[float, Accuracy], others: Mapping[str, Accuracy], output: Path | str, *, title: str
) -> Path:
    """Draw the accuracy of fixed kappas as a curve, of other heads as points, or lines where they have no kappa.

    Args:
        fixed: kappa -> accuracy, at least two.
        others: such as "LS" and "softmax".
        output: PNG file.
        title: what was trained.

    Returns:
        The file.

    Raises:
        ValueError: if fewer than two fixed kappas came.
    """
    if len(fixed) < 2:
        raise InputError(f"accuracy of {len(fixed)} fixed kappas came, expected at least two; train with more of them")
    figure = new_figure(3.6)
    axis = figure.subplots()
    kappas = sorted(fixed)
    style = look(0)
    axis.errorbar(
        kappas,
        [100 * fixed[kappa].mean for kappa in kappas],
        yerr=[100 * fixed[kappa].deviation for kappa in kappas],
        color=style.colour,
        marker=style.marker,
        capsize=3,
        label="kappa fixed by hand",
    )
    for index, (name, accuracy) in enumerate(others.items(), start=1):
        style, mean, deviation = look(index), 100 * accuracy.mean, 100 * accuracy.deviation
        label = label_of(f"{name}: {mean:.1f} ± {deviation:.1f} %")
        if accuracy.kappa is None:
            axis.axhline(mean, color=style.colour, linestyle=style.line, label=label)
        else:
            label += f", kappa* = {accuracy.kappa:.1f}"
            axis.errorbar(
                [accuracy.kappa], [mean], yerr=[deviation], color=style.colour, marker="*", markersize=14, label=label
            )
    axis.set_xscale("log")
    axis.set_xticks(kappas, [f"{kappa:g}" for kappa in kappas], minor=False)
    axis.minorticks_off()
    finish(axis, title, "kappa (log axis)", "test accuracy, %")
    legend_below(figure, *axis.get_legend_handles_labels())
    return save(figure, output)
