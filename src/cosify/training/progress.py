"""What a run shows while it goes on: a progress bar on a terminal, a line for each epoch, warnings."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from torch import Tensor

from cosify.heads.kappa_statistics import KappaStatistics, KappaSummary
from cosify.training.checkpoint import Progress
from cosify.training.evaluation import Evaluation

logger = logging.getLogger("cosify.training")

EDGE_WARNING = 0.05  # share of kappa* at an edge of the grid; above it, the estimate is not to be trusted
RUNAWAY = 2.0  # multiple of its start value; above it, a trainable kappa runs away
STARVING = 0.2  # share of the time spent waiting for images; above it, they come too slowly
SHORTEST_JUDGED = 5.0  # seconds of an epoch; shorter ones are mostly start-up
DISPLAY_SECONDS = 0.5  # between two updates of the bar: to fetch its numbers, it waits for the device


class Bar:
    """Progress bar with loss, accuracy, kappa and speed on the main process' terminal; elsewhere it does nothing."""

    def __init__(self, bar: Any, done: int, total: int) -> None:
        self._bar = bar
        self._task = bar.add_task("start", total=total, completed=done) if bar is not None else None
        self._shown, self._images = time.perf_counter(), 0

    def step(self, epoch: int, num_images: int, sums: Tensor, kappas: KappaStatistics, has_accuracy: bool) -> None:
        """Count a step of `num_images`; now and then fetch the epoch's sums of loss, correct and samples, and kappa."""
        if self._bar is None:
            return
        self._bar.advance(self._task)
        self._images += num_images
        seconds = time.perf_counter() - self._shown
        if seconds < DISPLAY_SECONDS:
            return
        loss, correct, samples = sums.tolist()
        shown = f"epoch {epoch + 1}  loss {loss / samples:.3f}"
        shown += f"  accuracy {correct / samples:.1%}" if has_accuracy else ""
        kappa = kappas.latest()
        if kappa is not None:
            edges = kappas.edge_shares()
            shown += f"  kappa {kappa:.2f}"
            shown += "" if edges is None else "  edges {:.1%} {:.1%}".format(*edges)
        self._bar.update(self._task, description=f"{shown}  {self._images / seconds:.0f} images/s")
        self._shown, self._images = time.perf_counter(), 0


@contextmanager
def bar(shown: bool, done: int, total: int) -> Iterator[Bar]:
    """Draw a bar of `total` steps of which `done` are done, if it is to be shown."""
    if not shown:
        yield Bar(None, done, total)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Drawn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Drawn(*columns, transient=True) as drawn:
        yield Bar(drawn, done, total)


def epoch_record(
    progress: Progress, epoch: int, lr: float, kappa: KappaSummary | None, counts_correct: bool
) -> dict[str, Any]:
    """Return an epoch's line of metrics.jsonl, before its evaluation.

    Args:
        progress: sums and times of the epoch, over all ranks.
        epoch: from 1 on.
        lr: learning rate of the next step.
        kappa: of the epoch; None for a softmax head.
        counts_correct: whether correct answers were counted.
    """
    loss, correct, samples = progress.sums
    record = {
        "kind": "epoch",
        "epoch": epoch,
        "step": progress.step,
        "lr": lr,
        "train_loss": loss / samples,
        "train_accuracy": correct / samples if counts_correct else None,
        "seconds": progress.seconds,
        "images_per_second": samples / progress.seconds,
        "waiting_share": progress.waited / progress.seconds,
    }
    return record if kappa is None else {**record, **{f"kappa_{name}": value for name, value in asdict(kappa).items()}}


def evaluation_record(evaluation: Evaluation) -> dict[str, Any]:
    """Return the entries of an evaluation in metrics.jsonl."""
    return {
        "test_loss": evaluation.loss,
        "test_accuracy": evaluation.accuracy,
        "mean_angle_deg": evaluation.mean_angle_deg,
    }


def log_epoch(
    record: dict[str, Any], epochs: int, kappa: KappaSummary | None, start_kappa: float | None, pipeline: str
) -> None:
    """Log the line of an epoch, and warnings.

    Args:
        record: its line of metrics.jsonl.
        epochs: of the whole run.
        kappa: of the epoch; None for a softmax head.
        start_kappa: start value of a trainable kappa; None for other policies.
        pipeline: of the images.
    """
    shown = f"epoch {record['epoch']}/{epochs}  loss {record['train_loss']:.3f}"
    if record["train_accuracy"] is not None:
        shown += f"  train {record['train_accuracy']:.1%}"
    if "test_accuracy" in record:
        shown += f"  test {record['test_accuracy']:.1%}"
    if kappa is not None:
        shown += f"  kappa {kappa.mean:.2f} (median {kappa.median:.2f})"
    logger.info("%s  %.0f images/s", shown, record["images_per_second"])
    if kappa is not None:
        warn_about_kappa(kappa, start_kappa)
    warn_about_speed(record, pipeline)


def warn_about_kappa(kappa: KappaSummary, start: float | None) -> None:
    """Warn if many kappas are at an edge of the grid, or a trainable kappa runs away.

    Args:
        kappa: of an epoch.
        start: start value of a trainable kappa; None for other policies.
    """
    for edge, share in (("lower", kappa.low_edge), ("upper", kappa.high_edge)):
        if share is not None and share > EDGE_WARNING:
            logger.warning(
                "%.0f %% of kappa lie at the %s edge of the search grid: the mean hides it, see kappa_histogram in"
                " metrics.jsonl",
                100 * share,
                edge,
            )
    if start is not None and kappa.mean > RUNAWAY * start:
        logger.warning(
            "the trainable kappa runs away: %.1f after a start at %.1f, and nothing stops it; kappa ls estimates it"
            " instead, a number fixes it",
            kappa.mean,
            start,
        )


def warn_about_speed(record: dict[str, Any], pipeline: str) -> None:
    """Warn if the network waits for its images."""
    speed, waiting = record["images_per_second"], record["waiting_share"]
    if record["seconds"] >= SHORTEST_JUDGED and waiting > STARVING:
        logger.warning(
            "the network waits for images in %.0f %% of the time: %.0f images/s, about %.0f without; %s",
            100 * waiting,
            speed,
            speed / (1 - waiting),
            "raise num_workers, or lower the cost of augment" if pipeline == "workers" else "see the device's load",
        )
