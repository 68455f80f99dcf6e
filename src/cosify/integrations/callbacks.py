"""Kappa in the logs of transformers' Trainer.  Imported on first use, because it needs transformers."""

import logging
from typing import Any

from torch import nn
from transformers import Trainer, TrainerCallback

from cosify.heads import CosineHead
from cosify.heads.kappa_watch import KappaWatch
from cosify.models import find_heads
from cosify.wrapping import wrap_once

logger = logging.getLogger("cosify")


class KappaCallback(TrainerCallback):
    """Adds kappa to what the Trainer logs: `Trainer(..., callbacks=[cosify.KappaCallback()])`.

    The logs, and so the console, `trainer.state.log_history` and the trackers (TensorBoard, W&B, trackio), get
    `kappa_mean`, `kappa_median`, `kappa_low_edge` and `kappa_high_edge`: of the training samples since the last log,
    over all cosine heads and all processes.  The edges are the shares of samples, in [0, 1], at the smallest and the
    largest candidate of Eq. (14); large shares mean that kappa would leave the grid.  They are logged only where every
    head picks kappa from that grid (policies "ls" and "ml"); a kappa that is fixed or trained has no edges.

    The device is read when the Trainer logs (or evaluates), not in other steps.  A checkpoint does not hold the
    statistics since the last log: the first log after a resume covers the steps since the resume.
    """

    def __init__(self) -> None:
        self._heads: list[CosineHead] = []
        self._watch = KappaWatch(self._heads)
        self._unlogged: dict[str, float] = {}
        wrap_once(Trainer, "log", _log_with_kappa)

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: nn.Module, **kwargs: Any) -> None:
        """Find the heads of the model, wrapped or not."""
        self._heads = list(find_heads(model).values())
        if not self._heads:
            logger.warning(
                "KappaCallback finds no cosine head in %s, so no kappa is logged; call cosify.convert(model) first",
                type(model).__name__,
            )
        self._watch, self._unlogged = KappaWatch(self._heads), {}

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count a batch whose gradient is accumulated."""
        self._watch.look()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the last batch of a step, and get kappa ready if the Trainer is about to log.

        Kappa is summed over the processes here, because all of them come here; `Trainer.log` may be called by one
        alone.
        """
        self._watch.look()
        if self._heads and all(head.last_kappa is None for head in self._heads):
            logger.warning(
                "KappaCallback sees no kappa after a step: under nn.DataParallel, copies of the head train; start the"
                " script with torchrun or accelerate launch, one process for each GPU"
            )
            self._heads = []  # it is said once
        self._prepare(control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Get kappa ready for a log at the end of an epoch."""
        self._prepare(control)

    def _prepare(self, control: Any) -> None:
        if control.should_log or control.should_evaluate:
            self._unlogged = self._watch.read(all_ranks=True) or self._unlogged

    def take(self) -> dict[str, float]:
        """Return kappa for the log, and forget it."""
        taken, self._unlogged = self._unlogged, {}
        return taken


def _log_with_kappa(original: Any, trainer: Any, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
    """Add kappa to what `Trainer.log` logs.

    A callback's own `on_log` is too late: the trackers come before the user's callbacks (transformers 5.17).
    """
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, KappaCallback):
            logs.update(callback.take())
    original(trainer, logs, *args, **kwargs)
