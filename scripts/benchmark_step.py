"""What LS costs in a whole training step: interleaved steps with LS, a fixed kappa, and the stock softmax head.

On the CPU, one thread, `resnet18_cifar` at 32 px with 100 classes and `resnet50` at 224 px with 1000:

    python scripts/benchmark_step.py

On a GPU, `resnet50` in bf16 and channels-last, eager and then compiled:

    python scripts/benchmark_step.py --device cuda --compile --output step.json

Three steps each on small images, to see that it works:

    python scripts/benchmark_step.py --smoke
"""

import json
import logging
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

logger = logging.getLogger("cosify")
ROOT = Path(__file__).resolve().parents[1]
HEADS: dict[str, dict[str, Any]] = {
    "LS": {"head": "cos", "kappa": "ls"},
    "fixed": {"head": "cos", "kappa": 15.0},
    "softmax": {},
}
RATIOS = (("LS", "fixed"), ("LS", "softmax"), ("fixed", "softmax"))
AT_ONCE = {"cpu": 1, "cuda": 4}  # steps between two looks at the clock


@dataclass(frozen=True)
class StepArguments:
    """Settings of the measurement."""

    repeats: int = field(default=15, metadata={"help": "Rounds of each kind. Default 15: medians within a percent."})
    device: Literal["cpu", "cuda"] = field(default="cpu", metadata={"help": "One core, or one GPU. Default cpu."})
    compile: bool = field(default=False, metadata={"help": "Measure compiled networks, too. Default: off."})
    output: str | None = field(default=None, metadata={"help": "JSON file of the figures. Default: none."})
    smoke: bool = field(default=False, metadata={"help": "Small images, two rounds. Default: off."})


@dataclass(frozen=True)
class Case:
    """One network on one kind of image."""

    model: str
    num_classes: int
    size: int
    batch_size: int


CASES = {
    "cpu": (Case("resnet18_cifar", 100, 32, 128), Case("resnet50", 1000, 224, 16)),
    "cuda": (Case("resnet50", 1000, 224, 256),),
}
SMOKE_CASES = (Case("resnet18_cifar", 100, 8, 4),)


def main(args: StepArguments) -> None:
    """Measure, log, and write after each case."""
    import torch

    from cosify.files import write_whole
    from cosify.training.environment import describe_environment

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = args.device == "cuda"
    figures: dict[str, Any] = {"environment": describe_environment(torch.device(args.device), 1), "cases": []}
    for case in SMOKE_CASES if args.smoke else CASES[args.device]:
        models = {name: make_model(case, settings, args.device) for name, settings in HEADS.items()}
        for compiled in (False, True)[: 1 + args.compile]:
            figures["cases"].append(measure(case, models, args, compiled=compiled))
            if args.output is not None:
                write_whole(Path(args.output), json.dumps(figures, indent=2) + "\n")


def measure(case: Case, models: dict[str, Any], args: StepArguments, *, compiled: bool) -> dict[str, Any]:
    """Return medians, ratios and, of compiled networks, the seconds of the first step."""
    from scripts.benchmark_timing import interleaved, wait_for

    first: dict[str, float] = {}
    steps = {name: make_step(case, model, args.device) for name, model in models.items()}
    for name, step in steps.items():
        if compiled:
            models[name].compile(backend="eager" if args.smoke else "inductor")
        begin = time.perf_counter()
        step()
        wait_for(args.device)
        first[name] = time.perf_counter() - begin
    seconds = interleaved(steps, 2 if args.smoke else args.repeats, args.device, at_once=AT_ONCE[args.device])
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    ratios = {f"{one} / {other}": medians[one] / medians[other] for one, other in RATIOS}
    spread = max(seconds["fixed"]) / min(seconds["fixed"])
    logger.info(
        "%s%s, C=%d, %d px, B=%d: fixed %.1f ms, %.0f images/s, %s, spread of fixed %.2f",
        *(case.model, " compiled" if compiled else "", case.num_classes, case.size, case.batch_size),
        *(1e3 * medians["fixed"], case.batch_size / medians["fixed"]),
        *(", ".join(f"{name} {ratio:.4f}" for name, ratio in ratios.items()), spread),
    )
    return {
        **asdict(case),
        "compiled": compiled,
        "images_per_second": {name: case.batch_size / median for name, median in medians.items()},
        "ratios": ratios,
        "spread": {name: max(taken) / min(taken) for name, taken in seconds.items()},
        "seconds": seconds,
        "first_step_seconds": first,
    }


def make_model(case: Case, settings: dict[str, Any], device: str) -> Any:
    """Return a network in training mode; channels-last on a GPU."""
    import timm
    import torch

    import cosify  # noqa: F401  # the plugin

    torch.manual_seed(0)
    layout = torch.channels_last if device == "cuda" else torch.contiguous_format
    return timm.create_model(case.model, num_classes=case.num_classes, **settings).to(device, memory_format=layout)


def make_step(case: Case, model: Any, device: str) -> Callable[[], None]:
    """Return a function that makes one step of SGD; under bf16 autocast on a GPU."""
    import torch
    import torch.nn.functional as F

    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images = torch.randn(case.batch_size, 3, case.size, case.size, device=device)
    images = images.contiguous(memory_format=torch.channels_last if device == "cuda" else torch.contiguous_format)
    labels = torch.arange(case.batch_size, device=device) % case.num_classes

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # for scripts.benchmark_timing
    from cosify.command import run_main

    run_main(main, StepArguments, __doc__)
