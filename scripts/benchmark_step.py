"""What LS costs in a whole training step: medians of interleaved steps with LS and with a fixed kappa.

On the CPU, one thread, `resnet18_cifar` at 32 px with 100 classes and `resnet50` at 224 px with 1000:

    python scripts/benchmark_step.py

One pair of steps on small images, to see that it works:

    python scripts/benchmark_step.py --smoke
"""

import logging
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("cosify")


@dataclass(frozen=True)
class StepArguments:
    """Settings of the measurement."""

    repeats: int = field(default=15, metadata={"help": "Steps of each kind. Default 15: medians within a percent."})
    device: str = field(default="cpu", metadata={"help": "cpu or cuda. Default cpu."})
    smoke: bool = field(default=False, metadata={"help": "Small images, two repeats. Default: off."})


@dataclass(frozen=True)
class Case:
    """One network on one kind of image."""

    model: str
    num_classes: int
    size: int
    batch_size: int


CASES = (Case("resnet18_cifar", 100, 32, 128), Case("resnet50", 1000, 224, 16))
SMOKE_CASES = (Case("resnet18_cifar", 100, 8, 4), Case("resnet50", 1000, 32, 2))


def main(args: StepArguments) -> None:
    """Measure and log the ratios."""
    import torch

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    for case in SMOKE_CASES if args.smoke else CASES:
        steps = {"fixed": make_step(case, 15.0, args.device), "LS": make_step(case, "ls", args.device)}
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for repeat in range(2 if args.smoke else args.repeats + 1):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                if repeat > 0:  # the first one warms up
                    seconds[name].append(time.perf_counter() - start)
        fixed, ls = (statistics.median(seconds[name]) for name in ("fixed", "LS"))
        spread = max(seconds["fixed"]) / min(seconds["fixed"])
        logger.info(
            "%s, C=%d, %d px, B=%d: fixed %.1f ms, LS / fixed %.4f, spread of fixed %.2f",
            *(case.model, case.num_classes, case.size, case.batch_size, 1e3 * fixed, ls / fixed, spread),
        )


def make_step(case: Case, kappa: float | str, device: str) -> "Callable[[], None]":
    """Return a function that makes one step of SGD and waits for it."""
    import timm
    import torch
    import torch.nn.functional as F

    import cosify  # noqa: F401  # the plugin

    torch.manual_seed(0)
    model: Any = timm.create_model(case.model, head="cos", kappa=kappa, num_classes=case.num_classes).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images = torch.randn(case.batch_size, 3, case.size, case.size, device=device)
    labels = torch.arange(case.batch_size, device=device) % case.num_classes

    def step() -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


if __name__ == "__main__":
    from transformers import HfArgumentParser

    main(*HfArgumentParser(StepArguments, description=__doc__).parse_args_into_dataclasses(look_for_args_file=False))
