"""A run as a whole, and one that dies and is resumed; as a program with algorithms that repeat themselves."""

import sys
from pathlib import Path
from typing import Any

import torch

from cosify.training import TrainArguments, train
from cosify.training.loop import Run
from cosify.training.result import TrainResult
from tests.training.records import recorded

STOP_AT = 7
ARGUMENTS: dict[str, Any] = {
    "data": "synthetic",
    "model": "resnet18_cifar",
    "model_kwargs": ["width=0.125"],
    "epochs": 2,
    "batch_size": 32,
    "tracker": "none",
}


class _StopError(Exception):
    pass


def hold(result: TrainResult, file: Path) -> None:
    device = next(result.model.parameters()).device.type
    records = recorded(result.folder.path)
    torch.save({"state": result.model.state_dict(), "records": records, "device": device}, file)


def stop_early(folder: Path) -> None:
    """Let every later run die after a step of its first epoch."""
    due = Run._due

    def dying(self: Any, every: int | None) -> bool:
        if self.progress.step == STOP_AT:
            (folder / "stopped").write_text(str(STOP_AT))
            Run._due = due  # type: ignore[method-assign]
            raise _StopError
        return due(self, every)

    Run._due = dying  # type: ignore[method-assign]


def main(folder: Path) -> None:
    settings = {**ARGUMENTS, "save_every_steps": 3, "mixup": 0.2}
    hold(train(TrainArguments(**settings, output=str(folder / "whole"))), folder / "whole.pt")
    stop_early(folder)
    try:
        train(TrainArguments(**settings, output=str(folder / "part")))
    except _StopError:
        hold(train(TrainArguments(resume=str(folder / "part"))), folder / "part.pt")


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True, warn_only=True)
    main(Path(sys.argv[1]))
