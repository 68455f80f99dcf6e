"""One rank of the distributed training test: a short run on synthetic images, then what this rank holds to a file."""

import sys
from dataclasses import asdict
from pathlib import Path

import torch

from cosify.training import TrainArguments, train


def run(folder: Path, batch_size: int) -> None:
    """Train in `folder`/run and write `folder`/rankR.pt; without a process group as rank 0."""
    args = TrainArguments(
        data="synthetic",
        augment="none",
        epochs=2,
        batch_size=batch_size,
        # Layer norm has no statistics over the batch, so that two ranks can equal one process.
        model="resnet10t",
        model_kwargs=["norm_layer=layernorm2d", "channels=(8, 8, 8, 16)", "stem_width=8"],
        image_size=32,
        output=str(folder / "run"),
    )
    result = train(args)
    assert result.kappa is not None
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    held = {
        "state": result.model.state_dict(),
        "evaluation": asdict(result.evaluation),
        "kappa": asdict(result.kappa),
    }
    torch.save(held, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), int(sys.argv[2]))
    torch.distributed.destroy_process_group()
