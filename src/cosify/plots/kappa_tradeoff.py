"""What a large kappa gives and what it takes: several quantities against kappa, softmax as a line."""

from collections.abc import Mapping
from pathlib import Path

from cosify.errors import InputError
from cosify.plots.accuracy_by_kappa import Accuracy
from cosify.plots.style import WIDTH, finish, label_of, look, new_figure, save


def plot_kappa_tradeoff(panels: Mapping[str, Mapping[str, Accuracy]], output: Path | str, *, title: str) -> Path:
    """Draw a panel for each quantity: heads with a kappa as a curve, others as lines with their deviation as a band.

    Args:
        panels: what was measured -> name of the head -> mean and deviation, as shares.
        output: PNG file.
        title: what was trained.

    Returns:
        The file.

    Raises:
        ValueError: if a panel has fewer than two heads with a kappa.
    """
    figure = new_figure(3.3, WIDTH)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    lines = dict.fromkeys(name for heads in panels.values() for name, found in heads.items() if found.kappa is None)
    for axis, (quantity, heads) in zip(axes, panels.items(), strict=True):
        curve = sorted((found.kappa, name) for name, found in heads.items() if found.kappa is not None)
        if len(curve) < 2:
            raise InputError(f"{quantity!r} has {len(curve)} heads with a kappa, expected at least two; train more")
        kappas = [kappa for kappa, _ in curve]
        means, deviations = ([100 * getattr(heads[name], of) for _, name in curve] for of in ("mean", "deviation"))
        style = look(0)
        axis.errorbar(kappas, means, yerr=deviations, color=style.colour, marker=style.marker, capsize=3)
        axis.set_xscale("log")
        axis.set_xticks(kappas, [f"{name}\n{kappa:.3g}" for kappa, name in curve], minor=False)
        axis.minorticks_off()
        for index, name in enumerate(lines, start=1):
            if name in heads:
                style, mean, deviation = look(index), 100 * heads[name].mean, 100 * heads[name].deviation
                axis.axhline(mean, color=style.colour, linestyle=style.line, label=label_of(name))
                axis.axhspan(mean - deviation, mean + deviation, color=style.colour, alpha=0.15, linewidth=0)
        finish(axis, quantity, "kappa (log axis)", "%")
        axis.margins(x=0.08)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(frameon=False, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    return save(figure, output)
