"""Cases of scripts/benchmark.py for training: heads in a whole step, trainer against bare loop, pipelines."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import count, repeat
from typing import Any, Literal

import numpy as np
import timm
import torch
import torch.nn.functional as F
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage
from torch import Tensor

from cosify.data import Data, PipelineSettings, Preprocessing, Shard, Splits, open_data
from cosify.training import Session, TrainArguments
from cosify.training.loop import Run
from cosify.training.model import ModelChoice, build_model, preprocessing_of
from cosify.training.progress import bar
from scripts.benchmark_cases import interleaved, seconds_of, wait_for

HEADS: dict[str, dict[str, Any]] = {
    "LS": {"head": "cos", "kappa": "ls"},
    "fixed": {"head": "cos", "kappa": 15.0},
    "softmax": {},
}
RATIOS = (("LS", "fixed"), ("LS", "softmax"), ("fixed", "softmax"))
SIDE = 32


@dataclass(frozen=True)
class Case:
    """A network, its images, and how many steps are timed at once."""

    model: str
    batch_size: int
    size: int = SIDE
    num_classes: int = 10
    at_once: int = 1
    width: float = 1.0
    num_images: int = 4096


STEP_CASES = {
    "cpu": (Case("resnet18_cifar", 128, 32, 100), Case("resnet50", 16, 224, 1000)),
    "cuda": (Case("resnet50", 256, 224, 1000, at_once=4),),
    "small": (Case("test_resnet", 4),),
}
LOOP_CASES = {
    "cpu": Case("resnet18_cifar", 128),
    "cuda": Case("resnet34_cifar", 512, at_once=8),
    "small": Case("resnet18_cifar", 16, width=1 / 16, num_images=128),
}
NUM_WORKERS = {"cpu": 2, "cuda": 8}


def bare_loop(
    model: Any, batches: Iterator[tuple[Tensor, Tensor]], layout: torch.memory_format, device: str
) -> Callable[[], None]:
    """Return a function that makes one step of SGD as a user would write it, on a GPU in bf16 and fused."""
    model = model.to(device, memory_format=layout)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=device == "cuda" or None
    )

    def step() -> None:
        images, labels = next(batches)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            logits = model(images.contiguous(memory_format=layout))
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def step_costs(
    case: Case, device: str, repeats: int, compiler: Literal["inductor", "eager"] | None
) -> Iterator[dict[str, Any]]:
    """Yield medians, ratios and spreads of steps with each head; with a compiler, also those of compiled networks.

    On a GPU, images and networks are channels-last.
    """
    torch.backends.cudnn.benchmark = device == "cuda"
    images = torch.randn(case.batch_size, 3, case.size, case.size, device=device)
    labels = torch.arange(case.batch_size, device=device) % case.num_classes

    layout = torch.channels_last if device == "cuda" else torch.contiguous_format
    batches = repeat((images.contiguous(memory_format=layout), labels))
    models: dict[str, Any] = {}
    for name, settings in HEADS.items():
        torch.manual_seed(0)
        models[name] = timm.create_model(case.model, num_classes=case.num_classes, **settings)
    for compiled in (False, True)[: 1 if compiler is None else 2]:
        if compiled:
            for model in models.values():
                model.compile(backend=compiler)
        steps = {name: bare_loop(model, batches, layout, device) for name, model in models.items()}
        first = {name: seconds for _, name, seconds, _ in interleaved(steps, 1, device)}
        seconds = seconds_of(steps, repeats, device, case.at_once)
        medians = {name: statistics.median(taken) for name, taken in seconds.items()}
        yield {
            **asdict(case),
            "compiled": compiled,
            "median_seconds": medians,
            "images_per_second": {name: case.batch_size / median for name, median in medians.items()},
            "ratios": {f"{one} / {other}": medians[one] / medians[other] for one, other in RATIOS},
            "spread": {name: max(taken) / min(taken) for name, taken in seconds.items()},
            "first_step_seconds": first,
        }


def loop_costs(case: Case, device: str, repeats: int) -> dict[str, Any]:
    """Return the cost of the trainer relative to a bare loop, and of the pipelines relative to each other."""
    splits = images_of(case.num_images)
    return {**asdict(case), **pipelines(splits, case, device), **trainer(splits, case, device, repeats)}


def trainer(splits: Splits, case: Case, device: str, repeats: int) -> dict[str, float]:
    """Return median seconds of a step, and ratios, of the trainer and of two bare loops: in its layout and contiguous.

    All have the same batches, network and loss; on a GPU they run in bf16.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainArguments(
            data="synthetic",
            model=case.model,
            model_kwargs=[f"width={case.width}"],
            image_size=SIDE,
            batch_size=case.batch_size,
            epochs=case.at_once * (repeats + 1),
            mixed_precision="bf16" if device == "cuda" else "no",
            tracker="none",
            output=f"{folder}/run",
        )
        choice = ModelChoice.of(settings)
        session = Session.open(settings, "benchmark", preprocessing_of(choice, pretrained=False))
        assert session.accelerator.device.type == device, "hide the GPU from a run on the CPU"
        session = replace(session, data=opened(splits, "device", device))
        run = Run(session, build_model(choice, settings, 10, 3), {}, None)

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for epoch in count():
                yield from session.data.train_batches(case.batch_size, epoch=epoch, seed=0, shard=session.shard)

        layouts = (("bare", run.parts.layout), ("contiguous", torch.contiguous_format))
        sums, own = torch.zeros(3, dtype=torch.float64, device=device), batches()
        with bar(False, 0, 1) as drawn:
            steps = {
                "trainer": lambda: run.step(own, 0, sums, drawn),
                **{
                    name: bare_loop(build_model(choice, settings, 10, 3), batches(), layout, device)
                    for name, layout in layouts
                },
            }
            seconds = seconds_of(steps, repeats, device, case.at_once)

    def ratio(name: str) -> float:
        return statistics.median(one / other for one, other in zip(seconds[name], seconds["bare"], strict=True))

    medians = {f"{name}_seconds": statistics.median(taken) for name, taken in seconds.items()}
    speed = {"trainer_images_per_second": case.batch_size / medians["trainer_seconds"]}
    return {**medians, **speed, "trainer_over_bare": ratio("trainer"), "contiguous_over_bare": ratio("contiguous")}


def pipelines(splits: Splits, case: Case, device: str) -> dict[str, float]:
    """Return images per second of both pipelines, without a network that uses them, and their ratio."""
    speeds = {}
    for pipeline, epochs in (("device", 5), ("workers", 1)):
        data = opened(splits, pipeline, device)
        for part in (range(1), range(1, 1 + epochs)):  # the first starts the workers
            start, seen = time.perf_counter(), 0
            for epoch in part:
                batches = data.train_batches(case.batch_size, epoch=epoch, seed=0, shard=Shard())
                seen += sum(len(labels) for _, labels in batches)
            wait_for(device)
            speeds[f"{pipeline}_images_per_second"] = seen / (time.perf_counter() - start)
    device_speed, workers_speed = speeds.values()
    return {**speeds, "device_over_workers": device_speed / workers_speed}


def opened(splits: Splits, pipeline: Any, device: str) -> Data:
    """Return the images as batches, shifted and mirrored."""
    settings = PipelineSettings("crop-flip", {}, pipeline, NUM_WORKERS[device])
    return open_data(splits, settings, Preprocessing(None, SIDE), data="own", device=torch.device(device))


def images_of(num_train: int) -> Splits:
    """Return colour images of 32 px in memory, stored as PNG like those of real data sets."""
    features = Features({"image": Image(), "label": ClassLabel(num_classes=10)})
    pixels = np.random.default_rng(0).integers(0, 256, (num_train, SIDE, SIDE, 3), dtype=np.uint8)
    rows = {"image": [PILImage.fromarray(each) for each in pixels], "label": [i % 10 for i in range(num_train)]}
    data = Dataset.from_dict(rows, features=features)
    return Splits(data, data.select(range(10)), "image", "label", tuple(map(str, range(10))), num_train)
