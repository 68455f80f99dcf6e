"""One rank of the distributed tests: short runs of a network with batch norm, then what this rank saw to a file."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from cosify.training import TrainArguments
from cosify.training.loop import Run, fit
from cosify.training.model import ModelChoice, build_model, preprocessing_of
from cosify.training.resumed import as_begun
from cosify.training.session import Session

ARGUMENTS = TrainArguments(
    data="synthetic",
    epochs=4,
    batch_size=64,
    # The last norm of a branch would start at 0 and, frozen, keep the branch out of the network.
    model_kwargs=["channels=(8, 8, 8, 16)", "stem_width=8", "zero_init_last=False"],
    lr=0.01,  # at 0.05 rounding errors grow until, after 15 steps, a sample's kappa jumps to the next candidate
    label_smoothing=0.1,
    clip_grad_norm=0.5,
    tracker="none",
)
EQUAL: dict[str, Any] = {"accumulate": 2, "batch_size": 32, "augment": "crop", "head_lr": 2.0}
MARGIN: dict[str, Any] = {**EQUAL, "cosine_margin": 0.2, "balance": "loss", "ema_decay": 0.9, "export": "best"}
SPREAD: dict[str, Any] = {"class_parallel": True}
BF16: dict[str, Any] = {"mixed_precision": "bf16", "epochs": 1, "warmup_epochs": 0}
RUNS: dict[str, dict[str, Any]] = {  # those of FSDP start with sharded
    "accumulate": EQUAL,
    "sharded": EQUAL,
    "workers": {"pipeline": "workers", "num_workers": 1, "transform": {"scale": [0.5, 1.0]}},
    "sharded-resumed": {"save_every_steps": 3, "kappa": "trainable", "export": "best"},
    "bf16": BF16,
    "sharded-bf16": BF16,
    "margin": MARGIN,
    "spread-margin": {**MARGIN, **SPREAD},
    "spread-accumulate": {**EQUAL, **SPREAD},
    "spread-resumed": {**SPREAD, "save_every_steps": 3, "ema_decay": 0.9, "export": "best", "optimizer": "adamw"},
    "spread-trainable": {**SPREAD, "save_every_steps": 3, "kappa": "trainable", "mixed_precision": "bf16"},
}
WITH_NORMS = ("sharded-resumed", "spread-trainable")
STOP_AT = 13


class _StopError(Exception):
    pass


def run(folder: Path, name: str, world_size: int, stop_at: int = 0) -> None:
    """Train in `folder`/NAME, or go on there, and write `folder`/NAME-R.pt.

    Args:
        folder: of the test.
        name: of the settings.
        world_size: number of processes, which share the batch.
        stop_at: step before which the run dies; 0 for its own end.
    """
    args = replace(ARGUMENTS, **RUNS[name])
    args = replace(args, batch_size=args.batch_size // world_size, output=str(folder / name))
    if (folder / name).exists():
        args = as_begun(TrainArguments(resume=str(folder / name)))
    choice = ModelChoice.of(args)
    session = Session.open(args, choice.name, preprocessing_of(choice, pretrained=False))
    if name.startswith("sharded"):
        _shard(session.accelerator)
    model = build_model(choice, args, len(session.data.label_names), session.data.image_shape[0])
    if name not in WITH_NORMS:
        _freeze_norms(model)
    try:
        with _recorded_steps(stop_at) as steps:
            result = fit(session, model)
    except _StopError:
        return
    held = {
        "steps": torch.stack(steps),
        "sharded": all(isinstance(parameter, DTensor) for parameter in model.parameters()),
        "state": result.model.state_dict(),
        "evaluation": asdict(result.evaluation),
        "augmentation": session.data.augmentation,
    }
    torch.save(held, folder / f"{name}-{session.shard.rank}.pt")


def _shard(accelerator: Any) -> None:
    """Let accelerate 1.15 shard on the CPU, where it would fall back to DDP without a word.

    The plugin is the one that `accelerate launch --use_fsdp --fsdp_version 2` makes, or the one of its file.
    """
    by_hand = {} if "FSDP_VERSION" in os.environ else {"fsdp_version": 2, "cpu_ram_efficient_loading": True}
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(**by_hand)
    if accelerator.mixed_precision != "no":
        accelerator.state.fsdp_plugin.set_mixed_precision(accelerator.mixed_precision)
    for state in (AcceleratorState, PartialState):
        state._shared_state["distributed_type"] = DistributedType.FSDP
    assert accelerator.is_fsdp2


def _freeze_norms(model: nn.Module) -> None:
    """Freeze the batch norms as if they had been trained: scales and statistics away from 1 and 0."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)


@contextmanager
def _recorded_steps(stop_at: int) -> Iterator[list[Tensor]]:
    """Give a list that fills with each step's sums of loss, correct answers and samples of this rank."""
    steps: list[Tensor] = []
    step = Run.step

    def recorded(self: Any, batches: Any, epoch: int, sums: Tensor, drawn: Any) -> None:
        if stop_at and self.progress.step == stop_at:
            raise _StopError
        before = sums.clone()
        step(self, batches, epoch, sums, drawn)
        steps.append(sums - before)

    with patch.object(Run, "step", recorded):
        yield steps


def main(folder: Path, *names: str) -> None:
    """Do some runs on two processes; one that is named again dies the first time and then goes on."""
    for number, name in enumerate(names, start=1):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        run(path.parent, path.name, world_size=2, stop_at=STOP_AT if name in names[number:] else 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), *sys.argv[2:])
    torch.distributed.destroy_process_group()
