"""One rank of the test of kappa* of the start weights: writes to a file what it found."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from cosify.training import Session, TrainArguments
from cosify.training.adaptation import scan_kappa
from cosify.training.model import ModelChoice, build_model, preprocessing_of

SETTINGS = TrainArguments(data="digits", head="linear", limit_train=129, batch_size=16, tracker="none")
LIMITS = (129, 100, 33)  # images to scan


def scan(folder: Path, world_size: int) -> tuple[int, list[dict[str, object]]]:
    """Return the rank of this process and, by number of images, kappa* under random weights; both ranks scan them."""
    args = replace(SETTINGS, batch_size=SETTINGS.batch_size // world_size, output=str(folder / str(world_size)))
    choice = ModelChoice.of(args)
    session = Session.open(args, "scan", preprocessing_of(choice, pretrained=False))
    torch.manual_seed(0)
    model: nn.Module = build_model(choice, args, 10, 1)
    return session.shard.rank, [asdict(scan_kappa(session, model, limit)) for limit in LIMITS]


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, found = scan(Path(sys.argv[1]), 2)
    (Path(sys.argv[1]) / f"rank{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
