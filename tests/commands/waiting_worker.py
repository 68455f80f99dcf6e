"""One of two processes of a command whose main one works alone for longer than torch lets the others wait."""

import sys
import time
from datetime import timedelta
from typing import Any

import torch
from torch.distributed import distributed_c10d

import cosify.evaluation
from cosify.commands import evaluate, probe

LIMIT = 2.0  # seconds, in the place of ten minutes (NCCL) or half an hour (gloo)


def slowly(work: Any) -> Any:
    """Return the function `work`, made slow."""

    def slow(*arguments: Any, **settings: Any) -> Any:
        time.sleep(3 * LIMIT)
        return work(*arguments, **settings)

    return slow


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed_c10d.default_pg_timeout = timedelta(seconds=LIMIT)
    cosify.evaluation.linear_probe = slowly(cosify.evaluation.linear_probe)
    evaluate.measure = slowly(evaluate.measure)
    command = {"probe": probe, "evaluate": evaluate}[sys.argv[2]].COMMAND
    command.run(["--smoke", "--output", sys.argv[1], *sys.argv[3:]], "program")
