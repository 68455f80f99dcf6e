"""What the training commands do after the training: export, figure, summary."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cosify.console.output import set_up_logging, show, two_columns

if TYPE_CHECKING:
    from rich.table import Table

    from cosify.training import TrainResult

Arguments = TypeVar("Arguments")
logger = logging.getLogger("cosify")


def run_training(train: "Callable[[Arguments], TrainResult]", args: Arguments) -> None:
    """Train, export, draw and summarise.

    Args:
        train: as `cosify.training.train` does.
        args: its settings.
    """
    set_up_logging()
    result = train(args)
    if result.is_main:
        export(result)
        show(summary(result, plot(result)))


def export(result: "TrainResult") -> None:
    """Write `export/`, the folder that other programs open.

    If it holds these weights already, as where a run is resumed after its end, it stays as it is: a kappa for
    evaluation and a rejector may have been fitted since.  Those of other weights do not outlive them.
    """
    from cosify.hub import save
    from cosify.hub.contents import REJECTOR, REJECTOR_TENSORS
    from cosify.hub.export import fitted_kappa, holds_weights_of

    folder = result.folder.export
    if holds_weights_of(folder, result.model):
        logger.info("%s holds these weights already, and stays as it is", folder)
        return
    gone = [] if fitted_kappa(folder) is None else ["the kappa that --calibrate fitted"]
    save(result.model, folder, label_names=result.label_names)
    rejectors = [file for name in (REJECTOR, REJECTOR_TENSORS, "rejector.safetensors") for file in folder.glob(name)]
    for file in rejectors:
        file.unlink()
    gone += ["the rejector"] if rejectors else []
    if gone:
        what, verb = " and ".join(gone), "was" if len(gone) == 1 else "were"
        logger.warning("%s in %s %s of the weights before, and no longer there; fit anew", what, folder, verb)


def plot(result: "TrainResult") -> Path:
    """Draw the course of the training; return the figure's file."""
    from cosify.plots import plot_kappa_trace

    return plot_kappa_trace(result.folder.path)


def summary(result: "TrainResult", figure: Path) -> "Table":
    """Return the table that ends the run."""
    kappa = result.kappa
    edges = {}
    if kappa is not None and kappa.low_edge is not None:
        edges["at the grid's edges"] = f"{kappa.low_edge:.1%} lower, {kappa.high_edge:.1%} upper"
    rows: dict[str, Any] = {
        "test accuracy": f"{result.evaluation.accuracy:.2%} of {result.evaluation.num_samples}",
        "test loss": f"{result.evaluation.loss:.4f}",
        "angle to class weight": f"{result.evaluation.mean_angle_deg:.1f} deg",
        "kappa, mean of last epoch": "none" if kappa is None else f"{kappa.mean:.3f}",
        **edges,
        "training time": f"{result.seconds:.0f} s",
        "figure": figure,
        "export": result.folder.export,
        "run folder": result.folder.path,
    }
    return two_columns("result", rows)
