"""Measure what the trainer costs beside a bare PyTorch loop, and the resident pipeline beside worker processes.

    python scripts/benchmark_loop.py
    python scripts/benchmark_loop.py --smoke

Steps of both loops are interleaved, with the same batches, network, layout and loss, and with those of a bare loop
whose layout is contiguous; medians are compared.  Pipelines deliver batches of augmented 32 px images from CIFAR-sized
data to nobody, so that their own speed shows.
"""

import json
import logging
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cosify.data import Splits

logger = logging.getLogger("cosify")
SIDE = 32


@dataclass(frozen=True)
class BenchmarkArguments:
    """What to measure."""

    width: float = field(default=1.0, metadata={"help": "Of resnet18_cifar. Default 1: 11 million parameters."})
    batch_size: int = field(default=128, metadata={"help": "Images of a batch. Default 128."})
    repeats: int = field(default=15, metadata={"help": "Interleaved steps of each loop. Default 15."})
    num_workers: int = field(default=2, metadata={"help": "Worker processes of the other pipeline. Default 2."})
    threads: int = field(default=2, metadata={"help": "CPU threads. Default 2."})
    output: str | None = field(default=None, metadata={"help": "JSON file of the figures. Default: none."})
    smoke: bool = field(default=False, metadata={"help": "Narrow network, three steps. Default: off."})


def main(args: BenchmarkArguments) -> None:
    """Measure and report."""
    import torch

    from cosify.training.environment import describe_environment

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    torch.set_num_threads(args.threads)
    width, repeats, num_train = (1 / 16, 3, 512) if args.smoke else (args.width, args.repeats, 4096)
    figures: dict[str, Any] = {
        "environment": describe_environment(torch.device("cpu"), 1),
        **loop_overhead(width, args.batch_size, repeats),
        **pipelines(images(num_train), args.batch_size, args.num_workers),
    }
    logger.info(
        "step of the trainer %.1f ms, %.3f times that of a bare loop; contiguous %.3f times (resnet18_cifar, width %g,"
        " B = %d)",
        1000 * figures["trainer_seconds"],
        figures["trainer_over_bare"],
        figures["contiguous_over_bare"],
        width,
        args.batch_size,
    )
    logger.info(
        "resident pipeline %.0f images/s, %d workers %.0f images/s: %.1f times",
        figures["device_images_per_second"],
        args.num_workers,
        figures["workers_images_per_second"],
        figures["device_over_workers"],
    )
    if args.output is not None:
        Path(args.output).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def loop_overhead(width: float, batch_size: int, repeats: int) -> dict[str, float]:
    """Return median seconds of a step of the trainer and of bare loops in its layout and contiguous, and ratios."""
    import torch
    import torch.nn.functional as F

    from cosify.training import Session, TrainArguments
    from cosify.training.loop import Run
    from cosify.training.model import ModelChoice, build_model, preprocessing_of
    from cosify.training.progress import bar

    with tempfile.TemporaryDirectory() as folder:
        args = TrainArguments(
            data="synthetic",
            model="resnet18_cifar",
            model_kwargs=[f"width={width}"],
            image_size=SIDE,
            batch_size=batch_size,
            epochs=10 * repeats,
            tracker="none",
            output=f"{folder}/run",
        )
        choice = ModelChoice.of(args)
        session = Session.open(args, "benchmark", preprocessing_of(choice, pretrained=False))
        data = session.data
        run = Run(session, build_model(choice, args, 10, 1), {}, None)
        loops = {}
        for name, layout in (("bare", run.layout), ("contiguous", torch.contiguous_format)):
            model = build_model(choice, args, 10, 1).to(memory_format=layout)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
            loops[name] = (layout, model, optimizer)
        sums = torch.zeros(3, dtype=torch.float64)
        seconds: dict[str, list[float]] = {"trainer": [], "bare": [], "contiguous": []}
        with bar(False, 0, 1) as drawn:
            for repeat in range(repeats + 1):  # the first warms up
                own, *others = (
                    data.train_batches(batch_size, epoch=repeat, seed=0, shard=session.shard) for _ in seconds
                )
                times = [time.perf_counter()]
                run.step(own, 0, sums, drawn)
                times.append(time.perf_counter())
                for batches, (layout, model, optimizer) in zip(others, loops.values(), strict=True):
                    inputs, labels = next(batches)
                    loss = F.cross_entropy(model(inputs.contiguous(memory_format=layout)), labels)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    times.append(time.perf_counter())
                if repeat > 0:
                    for name, start, end in zip(seconds, times, times[1:], strict=False):
                        seconds[name].append(end - start)

    def ratio(name: str) -> float:
        return statistics.median(one / other for one, other in zip(seconds[name], seconds["bare"], strict=True))

    medians = {f"{name}_seconds": statistics.median(taken) for name, taken in seconds.items()}
    return {**medians, "trainer_over_bare": ratio("trainer"), "contiguous_over_bare": ratio("contiguous")}


def pipelines(splits: "Splits", batch_size: int, num_workers: int) -> dict[str, float]:
    """Return images a second of both pipelines, and their ratio."""
    import torch

    from cosify.data import PipelineSettings, Preprocessing, Shard, open_data

    speeds = {}
    for pipeline in ("device", "workers"):
        settings = PipelineSettings("crop-flip", {}, pipeline, num_workers)
        data = open_data(splits, settings, Preprocessing(None, SIDE), data="own", device=torch.device("cpu"))
        for epoch in range(2):  # the first starts the workers
            start = time.perf_counter()
            count = sum(len(labels) for _, labels in data.train_batches(batch_size, epoch=epoch, seed=0, shard=Shard()))
            speeds[pipeline] = count / (time.perf_counter() - start)
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
    from cosify.command import run_main

    run_main(main, BenchmarkArguments, __doc__)
