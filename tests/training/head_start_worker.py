"""One rank of the test of head_start: begins a classifier on this rank's images, and writes its weights to a file."""

import sys
from pathlib import Path

import torch

from cosify.training import Session, TrainArguments
from cosify.training.head_start import begin_heads
from cosify.training.model import ModelChoice, build_model, preprocessing_of


def run(folder: Path) -> None:
    """Begin a classifier by a probe and one by class means, and write `folder`/rankR.pt."""
    args = TrainArguments(data="synthetic", batch_size=32, tracker="none", output=str(folder / "run"))
    choice = ModelChoice.of(args)
    session = Session.open(args, "start", preprocessing_of(choice, pretrained=False))
    weights = {}
    for how in ("probe", "means"):
        model = build_model(choice, args, 10, 1)
        begin_heads(session, model, how)  # type: ignore[arg-type]
        weights[how] = model.fc.weight.detach()
    torch.save(weights, folder / f"rank{session.shard.rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]))
    torch.distributed.destroy_process_group()
