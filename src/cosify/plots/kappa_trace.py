"""One figure of a training run: loss, accuracy, and how kappa was distributed, epoch by epoch."""

from pathlib import Path
from typing import Any

import numpy as np

from cosify.errors import InputError
from cosify.functional import kappa_grid
from cosify.plots.style import finish, legend_under, new_figure, save
from cosify.training.run_folder import read_metrics

FILE_NAME = "kappa_trace.png"
TRAIN, TEST = "#4c78a8", "#e4572e"
MAX_TICKS = 10
STACKED_WIDTH = 5.0  # inches
MIN_SHARE = 0.002  # of samples; the axis need not reach candidates with less


def plot_kappa_trace(run: Path | str, output: Path | str | None = None, *, stacked: bool = False) -> Path:
    """Draw a run's metrics.jsonl: loss and accuracy, and beside them kappa if the head has one.

    The kappa panel shades the share of training samples at each candidate of Eq. (14), and draws mean and median over
    it; shares at an edge of the grid above 0.1 %, where one was searched, stand in its title.

    Args:
        run: run folder.
        output: PNG file; default: `kappa_trace.png` in the run folder.
        stacked: one panel under the other, for a notebook or a phone, which would shrink the three side by side.

    Returns:
        The file.

    Raises:
        ValueError: if there is no epoch in metrics.jsonl yet.
        FileNotFoundError: if there is no metrics.jsonl.
    """
    run = Path(run)
    records = read_metrics(run)
    if not records:
        raise InputError(f"{run / 'metrics.jsonl'} has no lines, expected one an epoch; train for an epoch first")
    has_kappa = "kappa_mean" in records[0]
    panels = 3 if has_kappa else 2
    if stacked:
        figure = new_figure(2.3 * panels, STACKED_WIDTH)
        axes = figure.subplots(panels, 1)
    else:
        figure = new_figure(3.6, 12.5 if has_kappa else 8)
        axes = figure.subplots(1, panels, width_ratios=[1, 1, 1.35] if has_kappa else None)
    _lines(axes[0], records, "loss", "cross entropy (nats)")
    _lines(axes[1], records, "accuracy", "accuracy")
    if has_kappa:
        _kappa(axes[2], records)
    return save(figure, run / FILE_NAME if output is None else output)


def _column(records: list[dict[str, Any]], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([record[name] for record in records], dtype=np.float64)


def _lines(axis: Any, records: list[dict[str, Any]], quantity: str, title: str) -> None:
    from matplotlib.ticker import PercentFormatter

    for split, colour in (("train", TRAIN), ("test", TEST)):
        # Not every epoch is evaluated, and with a margin the training accuracy is not counted.
        measured = [record for record in records if record.get(f"{split}_{quantity}") is not None]
        if not measured:
            continue
        epochs, values = _column(measured, "epoch"), _column(measured, f"{split}_{quantity}")
        axis.plot(
            epochs, values, color=colour, marker="o", markersize=3, label=f"{split} {_shown(values[-1], quantity)}"
        )
    if quantity == "accuracy":
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    _finish(axis, title)


def _shown(value: float, quantity: str) -> str:
    return f"{value:.1%}" if quantity == "accuracy" else f"{value:.3f}"


def _kappa(axis: Any, records: list[dict[str, Any]]) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    epochs, mean, median = (_column(records, name) for name in ("epoch", "kappa_mean", "kappa_median"))
    grid = kappa_grid().double().numpy()
    counts = np.array([record["kappa_histogram"] for record in records], dtype=np.float64)
    shares = counts / counts.sum(axis=1, keepdims=True)
    step = float(np.sqrt(grid[1] / grid[0]))
    sides = np.append(grid / step, grid[-1] * step)
    if bool((shares.max(axis=1) < 1).any()):  # a fixed kappa, between two candidates, would be drawn as one of them
        image = axis.pcolormesh(
            np.append(epochs - 0.5, epochs[-1] + 0.5),
            sides,
            shares.T,
            cmap="Blues",
            vmin=0,
            vmax=1,
            alpha=0.75,
            linewidth=0,
        )
        axis.figure.colorbar(image, ax=axis, label="share of samples", pad=0.01)
    axis.plot(epochs, mean, color=TEST, marker="o", markersize=3, label=f"mean {mean[-1]:.2f}")
    axis.plot(epochs, median, color="black", linewidth=1, linestyle="--", label=f"median {median[-1]:.2f}")
    axis.set_yscale("log")
    low, high = _limits(shares, sides, mean)
    axis.set_ylim(low, high)
    candidates = grid[(grid >= low) & (grid <= high)]
    axis.yaxis.set_major_locator(FixedLocator(candidates[:: 1 + len(candidates) // MAX_TICKS].tolist()))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:.3g}"))
    axis.yaxis.set_minor_locator(NullLocator())
    _finish(axis, "kappa of training samples" + _edges(records[-1]))


def _limits(shares: Any, sides: Any, mean: Any) -> tuple[float, float]:
    """Return the range of candidates in use, one more on each side, wide enough for the line of the mean."""
    used = np.flatnonzero(shares.max(axis=0) >= MIN_SHARE)
    low, high = sides[max(used[0] - 1, 0)], sides[min(used[-1] + 2, len(sides) - 1)]
    return min(low, 0.9 * mean.min()), max(high, 1.1 * mean.max())


def _edges(last: dict[str, Any]) -> str:
    found = {edge: last[f"kappa_{edge}_edge"] for edge in ("low", "high")}
    shares = [f"{share:.1%} at {edge} edge" for edge, share in found.items() if share is not None and share > 1e-3]
    return f"\n({', '.join(shares)} of the grid)" if shares else ""


def _finish(axis: Any, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    finish(axis, title, "epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_under(axis, 2)
