"""Measure what the trainer costs beside a bare PyTorch loop, and the resident pipeline beside worker processes.

    python scripts/benchmark_loop.py
    python scripts/benchmark_loop.py --device cuda --model resnet34_cifar --batch_size 512
    python scripts/benchmark_loop.py --smoke

Steps of both loops are interleaved, with the same batches, network, layout and loss, and with those of a bare loop
whose layout is contiguous; medians are compared.  On a GPU all are bf16.  Pipelines deliver batches of augmented 32 px
images from CIFAR-sized data to nobody, so that their own speed shows.
"""

import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from cosify.data import Data, Splits

logger = logging.getLogger("cosify")
ROOT = Path(__file__).resolve().parents[1]
SIDE = 32
AT_ONCE = {"cpu": 1, "cuda": 8}  # steps between two looks at the clock


@dataclass(frozen=True)
class LoopArguments:
    """What to measure."""

    device: Literal["cpu", "cuda"] = field(default="cpu", metadata={"help": "CPU, or one GPU. Default cpu."})
    model: str = field(default="resnet18_cifar", metadata={"help": "Of timm. Default resnet18_cifar: 11 M parameters."})
    batch_size: int = field(default=128, metadata={"help": "Images of a batch. Default 128."})
    repeats: int = field(default=15, metadata={"help": "Interleaved rounds of each loop. Default 15."})
    num_workers: int = field(default=2, metadata={"help": "Worker processes of the other pipeline. Default 2."})
    threads: int = field(default=2, metadata={"help": "CPU threads. Default 2."})
    output: str | None = field(default=None, metadata={"help": "JSON file of the figures. Default: none."})
    smoke: bool = field(default=False, metadata={"help": "Narrow network, three steps. Default: off."})


def main(args: LoopArguments) -> None:
    """Measure and report."""
    import torch

    from cosify.files import write_whole
    from cosify.training.environment import describe_environment

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    torch.set_num_threads(args.threads)
    if args.smoke:
        args = replace(args, batch_size=16, repeats=3, threads=1)
    splits = images(64 if args.smoke else 4096)
    figures: dict[str, Any] = {
        "environment": describe_environment(torch.device(args.device), 1),
        "arguments": asdict(args),
        **pipelines(splits, args),
        **loop_overhead(splits, args),
    }
    if args.output is not None:
        write_whole(Path(args.output), json.dumps(figures, indent=2) + "\n")
    logger.info(
        "resident pipeline %.0f images/s, %d workers %.0f images/s: %.1f times",
        figures["device_images_per_second"],
        args.num_workers,
        figures["workers_images_per_second"],
        figures["device_over_workers"],
    )
    logger.info(
        "step of the trainer %.1f ms, %.0f images/s, %.3f times a bare loop's; contiguous %.3f times (%s, B = %d)",
        1000 * figures["trainer_seconds"],
        figures["trainer_images_per_second"],
        figures["trainer_over_bare"],
        figures["contiguous_over_bare"],
        args.model,
        args.batch_size,
    )


def resident(splits: "Splits", device: str, pipeline: Any = "device", num_workers: int | None = None) -> "Data":
    """Return the images as batches, shifted and mirrored."""
    import torch

    from cosify.data import PipelineSettings, Preprocessing, open_data

    settings = PipelineSettings("crop-flip", {}, pipeline, num_workers)
    return open_data(splits, settings, Preprocessing(None, SIDE), data="own", device=torch.device(device))


def loop_overhead(splits: "Splits", args: LoopArguments) -> dict[str, float]:
    """Return median seconds of a step of the trainer and of bare loops in its layout and contiguous, and ratios."""
    import torch
    import torch.nn.functional as F

    from cosify.errors import InputError
    from cosify.training import Session, TrainArguments
    from cosify.training.loop import Run
    from cosify.training.model import ModelChoice, build_model, preprocessing_of
    from cosify.training.progress import bar
    from scripts.benchmark_timing import interleaved

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainArguments(
            data="synthetic",
            model=args.model,
            model_kwargs=["width=0.0625"] if args.smoke else [],
            image_size=SIDE,
            batch_size=args.batch_size,
            epochs=AT_ONCE[args.device] * (args.repeats + 1),
            mixed_precision="bf16" if args.device == "cuda" else "no",
            tracker="none",
            output=f"{folder}/run",
        )
        choice = ModelChoice.of(settings)
        session = Session.open(settings, "benchmark", preprocessing_of(choice, pretrained=False))
        device = session.accelerator.device
        if device.type != args.device:
            raise InputError(f"device is {args.device!r}, but the trainer takes {device.type!r}; name that one")
        session = replace(session, data=resident(splits, args.device))

        def batches() -> "Iterator[tuple[Tensor, Tensor]]":
            for epoch in count():
                yield from session.data.train_batches(args.batch_size, epoch=epoch, seed=0, shard=session.shard)

        run = Run(session, build_model(choice, settings, 10, 3), {}, None)

        def bare(layout: torch.memory_format) -> Callable[[], object]:
            model = build_model(choice, settings, 10, 3).to(device).to(memory_format=layout)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
            own = batches()

            def step() -> None:
                inputs, labels = next(own)
                with torch.autocast(args.device, torch.bfloat16, enabled=args.device == "cuda"):
                    logits = model(inputs.contiguous(memory_format=layout))
                loss = F.cross_entropy(logits.float(), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

            return step

        sums, own = torch.zeros(3, dtype=torch.float64, device=device), batches()
        with bar(False, 0, 1) as drawn:
            steps = {
                "trainer": lambda: run.step(own, 0, sums, drawn),
                "bare": bare(run.layout),
                "contiguous": bare(torch.contiguous_format),
            }
            seconds = interleaved(steps, args.repeats, args.device, at_once=AT_ONCE[args.device])

    def ratio(name: str) -> float:
        return statistics.median(one / other for one, other in zip(seconds[name], seconds["bare"], strict=True))

    medians = {f"{name}_seconds": statistics.median(taken) for name, taken in seconds.items()}
    speed = {"trainer_images_per_second": args.batch_size / medians["trainer_seconds"]}
    return {**medians, **speed, "trainer_over_bare": ratio("trainer"), "contiguous_over_bare": ratio("contiguous")}


def pipelines(splits: "Splits", args: LoopArguments) -> dict[str, float]:
    """Return images a second of both pipelines, and their ratio."""
    from cosify.data import Shard
    from scripts.benchmark_timing import wait_for

    speeds = {}
    for pipeline in ("device", "workers"):
        data = resident(splits, args.device, pipeline, args.num_workers)
        for epochs in (range(1), range(1, 2 if pipeline == "workers" else 6)):  # the first starts the workers
            start, seen = time.perf_counter(), 0
            for epoch in epochs:
                batches = data.train_batches(args.batch_size, epoch=epoch, seed=0, shard=Shard())
                seen += sum(len(labels) for _, labels in batches)
            wait_for(args.device)
            speeds[pipeline] = seen / (time.perf_counter() - start)
    return {
        "device_images_per_second": speeds["device"],
        "workers_images_per_second": speeds["workers"],
        "device_over_workers": speeds["device"] / speeds["workers"],
    }


def images(num_train: int) -> "Splits":
    """Return colour images of 32 px in memory, stored as PNG, as data sets store them."""
    import numpy as np
    from datasets import ClassLabel, Dataset, Features, Image
    from PIL import Image as PILImage

    from cosify.data import Splits

    features = Features({"image": Image(), "label": ClassLabel(num_classes=10)})
    pixels = np.random.default_rng(0).integers(0, 256, (num_train, SIDE, SIDE, 3), dtype=np.uint8)
    rows = {"image": [PILImage.fromarray(each) for each in pixels], "label": [i % 10 for i in range(num_train)]}
    data = Dataset.from_dict(rows, features=features)
    names = tuple(str(index) for index in range(10))
    return Splits(data, data.select(range(10)), "image", "label", names, num_train)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # for scripts.benchmark_timing
    from cosify.command import run_main

    run_main(main, LoopArguments, __doc__)
