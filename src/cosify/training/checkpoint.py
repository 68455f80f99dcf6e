"""Checkpoints.  Each is written aside and renamed when whole, so that a killed process leaves the one before.

`checkpoints/step-N` is the newest state to resume from; `checkpoints/best.safetensors` the weights of the best
evaluation.
"""

import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cosify.errors import InputError
from cosify.files import remove_left, written_aside
from cosify.training.run_folder import RunFolder, read_config
from cosify.training.safe_pickle import tensors_only

PREFIX, DIGITS = "step-", 9


@dataclass
class Progress:
    """How far a run is.  All else about a step follows from the settings and the number of the step.

    Attributes:
        step: optimiser steps done.
        sums: loss, correct and samples of the epoch so far, over all ranks.
        kappa: state of `KappaStatistics`, over all ranks.
        seconds: time spent on the epoch so far.
        waited: how much of that was spent waiting for batches.
        best_accuracy: of all evaluations, None before the first.
        since_best: evaluations since the best one.
        done: whether an early stop ended the run.
    """

    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    kappa: dict[str, Any] | None = None
    seconds: float = 0.0
    waited: float = 0.0
    best_accuracy: float | None = None
    since_best: int = 0
    done: bool = False


def newest_checkpoint(run: RunFolder) -> Path | None:
    """Return the newest whole checkpoint of a run, None before the first."""
    found = sorted(path for path in run.checkpoints.glob(PREFIX + DIGITS * "[0-9]") if path.is_dir())
    return found[-1] if found else None


def kept_config(resume: str | None) -> dict[str, Any]:
    """Return config.json of a run that goes on from a checkpoint, {} of any other.

    Whatever the start of such a run is by now, what was found of it stands there.
    """
    if resume is None or newest_checkpoint(RunFolder(Path(resume))) is None:
        return {}
    return read_config(resume)


class Checkpoints:
    """The checkpoints of a run.

    Args:
        accelerator: of the run.  The models and optimisers that it prepared, and what is registered with it, are saved.
        run: folder of the run.
    """

    def __init__(self, accelerator: Any, run: RunFolder) -> None:
        self.accelerator, self.run = accelerator, run
        accelerator.register_save_state_pre_hook(_without_wrapper)
        accelerator.register_load_state_pre_hook(self._unwrapped)

    @property
    def folder(self) -> Path:
        """`checkpoints/` of the run folder."""
        return self.run.checkpoints

    def newest(self) -> Path | None:
        """Return the newest whole checkpoint, None before the first."""
        return newest_checkpoint(self.run)

    def save(self, progress: Progress) -> None:
        """Write a checkpoint and drop the one before; every rank must call this together.

        Raises:
            OSError: if it cannot be written; the one before is then still there.
        """
        before = self.newest()
        target = self.folder / f"{PREFIX}{progress.step:0{DIGITS}d}"
        if before == target:
            return
        aside = self.folder / f".{target.name}.new"  # every rank writes there
        what = f"the checkpoint of step {progress.step}"
        # On its own: were it part of `_write`, the others would wait there for a main process that failed.
        self.on_every_rank(lambda: self._make(aside), what, before)
        self.on_every_rank(lambda: self._write(aside, progress), what, before)
        self.on_every_rank(lambda: self._put_in_place(aside, target), what, before)
        self.run.was_put_in_place()

    def _make(self, aside: Path) -> None:
        if not self.accelerator.is_main_process:
            return
        for left in self.folder.glob(f".{PREFIX}{DIGITS * '[0-9]'}.new"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        aside.mkdir()

    def _write(self, aside: Path, progress: Progress) -> None:
        try:
            self.accelerator.save_state(str(aside))
            if self.accelerator.is_main_process:
                (aside / "progress.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")
                _flush(aside)
        except Exception:
            shutil.rmtree(aside, ignore_errors=True)
            raise

    def _put_in_place(self, aside: Path, target: Path) -> None:
        if not self.accelerator.is_main_process:
            return
        aside.rename(target)
        _flush(self.folder)
        for old in self.folder.glob(PREFIX + DIGITS * "[0-9]"):
            if old != target:
                shutil.rmtree(old, ignore_errors=True)
        self.run.put_in_place()  # an earlier run stays there until now

    def on_every_rank(self, write: Callable[[], None], what: str, kept: Path | None) -> None:
        """Call `write`; if it fails on any rank, raise on all of them, so that none waits for another.

        Raises:
            OSError: says what failed and which checkpoint is kept.
        """
        failed = None
        try:
            write()
        except Exception as error:  # by library, a full disk is an OSError, a RuntimeError or a SafetensorError
            failed = error
        flag = torch.tensor([int(failed is not None)], device=self.accelerator.device)
        if int(self.accelerator.reduce(flag, reduction="sum")) == 0:
            return
        left = "there is none before it" if kept is None else f"{kept.name} before it is kept"
        reason = "on another process" if failed is None else f"{type(failed).__name__}: {failed}"
        raise OSError(
            f"{what} cannot be written to {self.folder} ({reason}); {left}. Make room or repair the folder, then resume"
            " with --resume"
        ) from failed

    def on_main_process(self, write: Callable[[], None], what: str) -> None:
        """Call `write` on the main process.  Every rank must call this together; all raise if it fails."""
        self.on_every_rank(write if self.accelerator.is_main_process else lambda: None, what, self.newest())

    def load(self) -> Progress:
        """Load the newest checkpoint, and return its progress; a run without one begins at step 0.

        Raises:
            ValueError: if it does not fit the model or is damaged.
        """
        newest = self.newest()
        if newest is None:
            return Progress()
        try:
            with tensors_only(newest):
                # Not onto the device, which may have room for a part of the classes alone.
                self.accelerator.load_state(str(newest), map_location="cpu")
            progress = read_progress(newest / "progress.json")
        except Exception as error:
            raise InputError(
                f"checkpoint {newest} cannot be loaded ({type(error).__name__}: {error}), expected a whole one of the"
                " same model; start a new run"
            ) from error
        if not self.accelerator.is_main_process:  # the sums are over all ranks: only one may continue them
            progress.sums = [0.0] * len(progress.sums)
        return progress

    def save_best(self, model: nn.Module) -> None:
        """Write the model's weights to best.safetensors, on the main process."""
        from safetensors.torch import save_model

        best = self.folder / "best.safetensors"
        remove_left(self.folder, best.name)
        with written_aside(best) as aside:
            save_model(model, str(aside))

    def load_best(self, model: nn.Module) -> None:
        """Give `model` the weights of the best evaluation."""
        from safetensors.torch import load_model

        load_model(model, str(self.folder / "best.safetensors"), device="cpu")

    def _unwrapped(self, models: list[nn.Module], _: str) -> None:
        if self.accelerator.distributed_type != "FSDP":
            models[:] = [self.accelerator.unwrap_model(model) for model in models]


def read_progress(file: Path) -> Progress:
    """Return the progress that a checkpoint stores."""
    progress = Progress(**json.loads(file.read_text(encoding="utf-8")))
    for name, value in asdict(Progress()).items():
        found = getattr(progress, name)
        kinds = (int, float) if value is None or type(value) is float else type(value)
        if not isinstance(found, dict | None if name == "kappa" else kinds) and (value, found) != (None, None):
            raise InputError(f"{file.name} has {name} = {found!r}")
    if [len(progress.sums), file.parent.name] != [3, f"{PREFIX}{progress.step:0{DIGITS}d}"]:
        raise InputError(f"{file.name} is not of this checkpoint")
    return progress


def _flush(path: Path) -> None:
    """Flush a folder and its files to the disk, since the rename that follows promises that they are whole.

    Windows cannot open a folder, and flushes only files that are open for writing.
    """
    for each in (*(path.iterdir() if path.is_dir() else ()), path):
        if each.is_dir() and os.name == "nt":
            continue
        descriptor = os.open(each, os.O_RDONLY if each.is_dir() else os.O_RDWR)
        os.fsync(descriptor)
        os.close(descriptor)


def _without_wrapper(_: Any, weights: list[Mapping[str, Tensor]], __: str) -> None:
    """Drop the `module.` of DDP from names, so that another number of processes can load them.

    They stay in an OrderedDict: only in one does accelerate make channels-last weights contiguous for safetensors.
    """
    weights[:] = [
        OrderedDict((name.removeprefix("module."), value) for name, value in each.items()) for each in weights
    ]
