"""What the resume tests do in processes of their own: a short run, or the rest of one."""

import os
import resource
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cosify.training import TrainArguments, train
from cosify.training.loop import Run

TINY = ["channels=(8, 8, 8, 16)", "stem_width=8", "drop_rate=0.2"]
ARGUMENTS = TrainArguments(
    data="synthetic",
    epochs=3,
    batch_size=32,
    model_kwargs=TINY,
    save_every_steps=3,
    mixup=0.2,
    tracker="none",
    export="best",
)


def start_or_resume(folder: str, epochs: int) -> None:
    """Begin the run in `folder`, or go on with it; a kill spares what is not flushed to the disk."""
    os.fsync = lambda fd: None
    torch.set_num_threads(1)
    path = Path(folder)
    new = replace(ARGUMENTS, epochs=epochs, save_every_steps=1, output=folder)
    train(TrainArguments(resume=str(path)) if path.exists() else new)


def fill_the_disk(folder: str, step: int) -> None:
    """Begin the run in `folder`; from `step` on no file can grow beyond a few kilobytes."""
    torch.set_num_threads(1)
    save = Run._save

    def limited(self: Any, sums: Any) -> None:
        if self.progress.step == step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
        save(self, sums)

    Run._save = limited  # type: ignore[method-assign]
    try:
        train(replace(ARGUMENTS, output=folder))
    except OSError as error:
        Path(folder).with_name("error.txt").write_text(str(error))


if __name__ == "__main__":
    fill_the_disk(sys.argv[1], int(sys.argv[2]))
