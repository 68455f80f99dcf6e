"""Kappa in the summary of timm's train.py: printed with each epoch, and written to summary.csv and to W&B.

timm's train.py hands each epoch's numbers to `timm.utils.update_summary`, on its main process alone.  So this adds
kappa there, of the main process' share of the samples.  Kappa is counted after the optimiser's steps: with gradient
accumulation, that is kappa of a step's last batch.
"""

import csv
import functools
import inspect
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm.utils
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from cosify.heads import CosineHead
from cosify.heads.kappa_watch import WATCHED, KappaWatch
from cosify.models import find_heads
from cosify.models.memory import converted

logger = logging.getLogger("cosify")

ARGUMENTS = {"epoch", "train_metrics", "filename"}  # of timm's function, that this touches
KEYS = tuple(f"kappa_{name}" for name in WATCHED)


@contextmanager
def told_of_kappa() -> Iterator[None]:
    """Let `timm.utils.update_summary` report kappa inside; a script that never calls it runs as before."""
    original = getattr(timm.utils, "update_summary", None)
    if original is None or not inspect.signature(original).parameters.keys() >= ARGUMENTS:
        logger.warning(
            "timm %s lacks timm.utils.update_summary(%s), so kappa is not in the summary of its train.py",
            timm.__version__,
            ", ".join(sorted(ARGUMENTS)),
        )
        yield
        return
    epoch = _Epoch()
    counting = register_optimizer_step_post_hook(lambda optimizer, *_: epoch.step(optimizer))
    timm.utils.update_summary = functools.wraps(original)(functools.partial(_update_summary, original, epoch))
    try:
        yield
    finally:
        timm.utils.update_summary = original
        counting.remove()


class _Epoch:
    """Kappa of the cosine heads that train, since the last summary.  After an error of ours, one warning, it stops."""

    def __init__(self) -> None:
        self._watch: KappaWatch | None = None
        self._failed = False

    def step(self, optimizer: Optimizer) -> None:
        """Count kappa of a step; cheap where no cosine head trains."""
        if self._failed:
            return
        try:
            if self._watch is None:
                heads = _heads_of(optimizer)
                if not heads:
                    return
                self._watch = KappaWatch(heads)
            self._watch.look()
        except Exception as error:  # the program is the user's
            self._fail(error)

    def add_to(self, arguments: dict[str, Any]) -> None:
        """Print kappa of the epoch, add it to the metrics of training, and start again, perhaps with other models."""
        watch, self._watch = self._watch, None
        kappa: dict[str, float] = {}
        if watch is not None:
            try:
                kappa = watch.read()
            except Exception as error:
                self._fail(error)
        arguments["train_metrics"] = {**arguments["train_metrics"], **_columns(kappa, arguments)}

    def _fail(self, error: Exception) -> None:
        self._watch, self._failed = None, True
        logger.warning("kappa is not in the summaries of this program (%s: %s)", type(error).__name__, error)


def _heads_of(optimizer: Optimizer) -> list[CosineHead]:
    """Return the cosine heads of the models that an optimiser trains, each once."""
    if not converted:
        return []
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    models = [model for model in list(converted) if any(id(parameter) in trained for parameter in model.parameters())]
    return list(dict.fromkeys(head for model in models for head in find_heads(model).values()))


def _update_summary(original: Callable[..., Any], epoch: _Epoch, *args: Any, **kwargs: Any) -> Any:
    """Call timm's function with kappa among the metrics of training."""
    try:
        bound = inspect.signature(original).bind(*args, **kwargs)
    except TypeError:  # timm's own function explains it
        return original(*args, **kwargs)
    epoch.add_to(bound.arguments)
    return original(*bound.args, **bound.kwargs)


def _columns(kappa: dict[str, float], arguments: dict[str, Any]) -> dict[str, float]:
    """Print kappa, and return what fits the columns of the file."""
    if kappa:
        edges = ""
        if "kappa_low_edge" in kappa:
            low, high = 100 * kappa["kappa_low_edge"], 100 * kappa["kappa_high_edge"]
            edges = f"; at the lower edge of the grid {low:.1f} %, at the upper {high:.1f} %"
        mean, median = kappa["kappa_mean"], kappa["kappa_median"]
        logger.info("Train: %s  kappa: mean %.4g, median %.4g%s", arguments["epoch"], mean, median, edges)
    file = Path(arguments["filename"])
    if arguments.get("write_header") or not file.exists() or file.stat().st_size == 0:
        return kappa  # the row comes with its header
    with file.open(newline="") as rows:
        header = next(csv.reader(rows), [])
    # Those of a run that began without kappa, or with another policy, stay as they are.
    return {key: kappa.get(key, math.nan) for key in KEYS if f"train_{key}" in header}
