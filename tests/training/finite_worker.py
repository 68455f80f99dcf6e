"""One rank of the test of a divergence: the second rank alone gets NaN; each writes how it ended."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cosify.training import train
from cosify.training.batch_augment import BatchAugment
from tests.training.resume_worker import ARGUMENTS


def run(folder: Path) -> None:
    """Train in `folder`/run and write the error to `folder`/rankR.txt."""
    augment, calls = BatchAugment.__call__, [0]

    def poisoned(self: Any, images: Any, labels: Any, epoch: int) -> Any:
        images, labels = augment(self, images, labels, epoch)
        calls[0] += 1
        if torch.distributed.get_rank() == 1 and calls[0] == 7:
            images[3] = torch.nan
        return images, labels

    BatchAugment.__call__ = poisoned  # type: ignore[method-assign]
    try:
        train(replace(ARGUMENTS, batch_size=16, save_every_steps=3, output=str(folder / "run")))
    except ValueError as error:
        (folder / f"rank{torch.distributed.get_rank()}.txt").write_text(str(error))


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]))
    torch.distributed.destroy_process_group()
