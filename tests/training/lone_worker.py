"""One of two processes fails, or stops to answer, at step 12; the other is to end, too."""

import os
import signal
import sys
from typing import Any
from unittest.mock import patch

import torch

from cosify.console import leave_processes, one_line_errors
from cosify.console.training import run_training
from cosify.errors import InputError
from cosify.training import TrainArguments, train
from cosify.training.loop import Run
from tests.training.resume_worker import TINY

step = Run.step


def failing(self: Any, *arguments: Any) -> None:
    """Make a step, or not."""
    if self.session.shard.rank == 1 and self.progress.step == 12:
        if sys.argv[2] == "silent":
            os.kill(os.getpid(), signal.SIGSTOP)
        raise InputError("image in row 7 is broken") if sys.argv[2] == "input" else ZeroDivisionError
    step(self, *arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with patch.object(Run, "step", failing), one_line_errors():
        run_training(
            train,
            TrainArguments(
                data="synthetic", epochs=3, batch_size=32, model_kwargs=TINY, tracker="none", output=sys.argv[1],
                wait_minutes=0.2,
            ),
        )  # fmt: skip
        leave_processes()
