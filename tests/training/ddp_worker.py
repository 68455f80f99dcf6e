"""One rank of the distributed training tests: a short run on synthetic images, then what this rank holds to a file."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cosify.training import TrainArguments, train
from cosify.training.loop import Run


class _StopError(Exception):
    pass


def run(folder: Path, batch_size: int, stop_at: int = 0) -> None:
    """Train in `folder`/run, or go on there, and write `folder`/rankR.pt; without a process group as rank 0.

    Args:
        folder: of the test.
        batch_size: images of one rank.
        stop_at: step after whose checkpoint the run ends; 0 for its own end.
    """
    args = TrainArguments(
        data="synthetic",
        epochs=4,
        batch_size=batch_size,
        # Layer norm has no statistics over the batch, so that two ranks can equal one process.
        model="resnet10t",
        model_kwargs=["norm_layer=layernorm2d", "channels=(8, 8, 8, 16)", "stem_width=8"],
        image_size=32,
        save_every_steps=2,
        tracker="none",
        output=str(folder / "run"),
    )
    if (folder / "run").exists():
        args = TrainArguments(resume=str(folder / "run"))
    if stop_at:
        _end_after(stop_at)
    try:
        result = train(args)
    except _StopError:
        return
    assert result.kappa is not None
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    held = {
        "state": result.model.state_dict(),
        "evaluation": asdict(result.evaluation),
        "kappa": asdict(result.kappa),
    }
    torch.save(held, folder / f"rank{rank}.pt")


def _end_after(step: int) -> None:
    save = Run._save

    def last(self: Any, sums: Any) -> None:
        save(self, sums)
        if self.progress.step == step:
            raise _StopError

    Run._save = last  # type: ignore[method-assign]


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
