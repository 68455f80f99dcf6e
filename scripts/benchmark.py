"""Time what cosify adds to training and evaluation, and check that it is exact.

See that everything works, in half a minute; the ratios are printed, but not compared with targets:

    python scripts/benchmark.py --quick --output runs/benchmark

Measure loss, memory and evaluation for all shapes: on one core, in several minutes and with about 6 GB of memory; or on
one GPU, with TF32 products:

    python scripts/benchmark.py
    python scripts/benchmark.py --device cuda --tf32 --output runs/benchmark-cuda

Measure a whole training step (with LS, a fixed kappa, and the stock softmax head), or compare the trainer with a bare
PyTorch loop and the resident pipeline with worker processes; on a GPU in bf16:

    python scripts/benchmark.py --parts step --repeats 11
    python scripts/benchmark.py --parts step --device cuda --compile
    python scripts/benchmark.py --parts loop --repeats 15 --threads 2

`CosineSoftmaxLoss` with LS kappa is compared with plain softmax, naive LS and pytorch-metric-learning, in the forward
pass and in the backward pass to embeddings and weight.  All contenders take turns in one process.  A run writes its
files and then fails if a kappa differs from that of the float64 grid, if a gradient is wrong, or if page faults spoilt
the times.  OUTPUT holds benchmark.json and benchmark.md, which are written after each measurement.
"""

import ctypes
import json
import logging
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cosify.errors import InputError
from cosify.settings import AT_LEAST_1, SEED, Rule, flag

if TYPE_CHECKING:
    from scripts.benchmark_cases import Kind, Row, Shape

logger = logging.getLogger("benchmark")
ROOT = Path(__file__).resolve().parents[1]

TITLES = {
    "loss": "Time of forward and backward, as ratios to plain",
    "memory": "Memory of one step above inputs and parameters",
    "evaluation": "Evaluation, as ratios to nn.Linear",
    "step": "Steps of training, as ratios of heads",
    "loop": "The trainer beside a bare loop, and pipelines",
}
LOOP_SPEEDS = {"trained": "trainer", "resident": "device", "by workers": "workers"}
TINY = 1 << 24  # B d C
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
GRADIENT_ERROR = 1e-5
FAULTS = 1000  # in a step
MET = {True: "met", False: "missed"}
REPEATS, QUICK_REPEATS = 9, 3  # a median needs about 9
TWO = Rule(lambda value: value >= 2, "at least 2, for a spread")
KINDS: "tuple[Kind, ...]" = ("planted", "random", "tight")
WITH_ALL_KINDS: "tuple[Shape, ...]" = ((256, 512, 10_000), (64, 128, 2000))
FIVE = ((128, 512, 100), (256, 2048, 1000), (256, 512, 10_000), (256, 2048, 8142), (128, 512, 93_431))
SHAPES: "dict[str, tuple[Shape, ...]]" = {
    "cpu": FIVE,
    "cuda": (*FIVE, (512, 512, 93_431)),
    "cpu quick": ((32, 64, 50), (64, 128, 2000)),
    # On a GPU, launching the kernels of a small problem takes longer than computing them; one case shows that.
    "cuda quick": ((64, 128, 2000), (256, 2048, 1000), (256, 2048, 8142), (512, 512, 93_431)),
}
FOUR = ("plain", "PML Normalized", "fixed", "certified")
MEMORY: "dict[str, dict[Shape, tuple[str, ...]]]" = {
    "cpu": {
        (256, 512, 10_000): FOUR,
        (128, 512, 93_431): ("plain", "fixed", "certified"),
        (64, 512, 1_000_000): ("certified",),
    },
    "cuda": {
        (256, 512, 10_000): FOUR,
        (512, 512, 93_431): (*FOUR, "certified, fused"),
        (64, 512, 1_000_000): ("certified",),
    },
    "cpu quick": {(64, 128, 2000): ("plain", "certified")},
    "cuda quick": {(512, 512, 93_431): (*FOUR, "certified, fused")},
}
EVALUATION = ((1, 512, 1000), (32, 512, 1000), (256, 2048, 1000), (1, 768, 21_841), (32, 768, 21_841), (128, 512, 100))


@dataclass(frozen=True)
class BenchmarkArguments:
    """Settings: what to measure."""

    output: str = flag("runs/benchmark", "Folder for benchmark.json and benchmark.md.")
    device: Literal["cpu", "cuda"] = flag("cpu", "One core, or one GPU.")
    parts: list[str] = flag(
        ["memory", "evaluation", "loss"], "What to measure. Some of memory, step, loop, evaluation, loss."
    )
    quick: bool = flag(False, "Small problems and 3 repeats, for CI; on a GPU fewer problems.")
    repeats: int | None = flag(None, "Timed steps of each contender. Default: 9, for --quick on the CPU 3.", TWO)
    threads: int = flag(1, "CPU threads. Default 1: one core is steadier than many.", AT_LEAST_1)
    compile: bool = flag(False, "Measure compiled networks, too, in the part step.")
    tf32: bool = flag(False, "TF32 products, on a GPU; gradients are then not checked.")
    seed: int = flag(0, "Seed of weights, labels and embeddings.", SEED)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.parts) - set(TITLES))
        if unknown:
            raise InputError(f"parts has {unknown}, expected some of {list(TITLES)}")
        if self.tf32 and self.device == "cpu":
            raise InputError("tf32 has no effect on the CPU; leave it out or add --device cuda")
        if self.compile and "step" not in self.parts:
            raise InputError("compile has no effect without the part step; leave it out or add --parts step")

    @property
    def steps(self) -> int:
        """Timed steps of each contender."""
        if self.repeats is not None:
            return self.repeats
        return QUICK_REPEATS if self.size == "cpu quick" else REPEATS

    @property
    def size(self) -> str:
        """Key of `SHAPES` and `MEMORY`."""
        return self.device + " quick" * self.quick


# The largest value allowed, by name in `numbers`.  The last one is for a GPU with TF32.
TARGETS = {
    "time, certified / plain, (128, 512, 100) planted": 2.3,
    "time, certified / plain, (256, 2048, 1000) planted": 1.8,
    "time, certified / plain, (256, 512, 10000) planted": 2.0,
    "time, certified / plain, (256, 512, 10000) random": 2.1,
    "time, certified / plain, (256, 512, 10000) tight": 3.0,
    "time, certified / plain, (256, 2048, 8142) planted": 1.9,
    "time, certified / plain, (128, 512, 93431) planted": 2.3,
    "time, certified / naive, (128, 512, 100) planted": 0.45,
    "time, certified / naive, (256, 2048, 1000) planted": 0.28,
    "time, certified / naive, (256, 512, 10000) planted": 0.28,
    "time, certified / naive, (256, 2048, 8142) planted": 0.3,
    "time, certified / naive, (128, 512, 93431) planted": 0.34,
    "time, fixed / PML Normalized, (256, 512, 10000) planted": 1.0,
    "memory, fixed / PML Normalized, (256, 512, 10000) planted": 0.2,
    "memory, certified / plain, (128, 512, 93431) planted": 0.22,
    "memory, certified / plain, (256, 512, 10000) planted": 0.25,
    "memory above gradient, certified, (64, 512, 1000000) planted": 64.0,
    "evaluations, certified, (256, 512, 10000) planted": 4.2,
    "evaluations, certified, (256, 512, 10000) random": 4.8,
    "evaluations, certified, (256, 512, 10000) tight": 8.0,
    "wrong index, certified, (256, 512, 10000) tight": 0.0,
    "time, certified / plain, (512, 512, 93431) planted": 1.6,
    "time, certified, fused / plain, (512, 512, 93431) planted": 1.6,
}


def numbers(found: dict[str, list[Any]]) -> dict[str, float]:
    """Return the numbers that targets can be set for, by name."""
    named: dict[str, float] = {}
    for row in found["loss"]:
        where = f"{row.shape} {row.kind}"
        named[f"evaluations, certified, {where}"] = row.evaluations
        named[f"wrong index, certified, {where}"] = row.wrong_index
        for (name, timing), (over, other) in product(row.timings.items(), repeat=2):
            named[f"time, {name} / {over}, {where}"] = timing.median_ms / other.median_ms
    for row, other in product(found["memory"], repeat=2):
        named[f"memory above gradient, {row.contender}, {row.shape} planted"] = row.peak_mb - row.gradient_mb
        if row.shape == other.shape:
            named[f"memory, {row.contender} / {other.contender}, {row.shape} planted"] = row.peak_mb / other.peak_mb
    return named


def verdicts(found: dict[str, list[Any]]) -> list[dict[str, str]]:
    """Return a table row for each target that was measured."""
    measured = numbers(found)
    return [
        {"target": name, "at most": f"{limit:g}", "measured": f"{measured[name]:.2f}", "": MET[measured[name] <= limit]}
        for name, limit in TARGETS.items()
        if name in measured
    ]


def failures(row: "Row", args: BenchmarkArguments) -> list[str]:
    """Return the reasons why this run does not count."""
    where, found = f"{row.shape} {row.kind}", []
    if row.wrong_index > 0:
        found.append(f"{where}: {row.wrong_index} kappas differ from the float64 grid's")
    for name, error in (("embedding", row.embedding_gradient_error), ("weight", row.weight_gradient_error)):
        if not args.tf32 and not error < GRADIENT_ERROR:
            found.append(f"{where}: gradient of {name} is off by {error:.1e}, expected below {GRADIENT_ERROR:.0e}")
    for name, timing in row.timings.items():
        if args.size == "cpu" and timing.faults >= FAULTS:
            found.append(f"{where}: {name} had {timing.faults} page faults in a step, expected below {FAULTS}")
    return found


def cells(part: str, row: Any, found: dict[str, list[Any]]) -> dict[str, str]:
    """Return the table row of a measurement; the spread is the slowest step divided by the fastest."""
    from scripts.benchmark_cases import CONTENDERS

    if part == "step":
        ratios = {name: f"{ratio:.3f}" for name, ratio in row["ratios"].items()}
        name, speed = row["model"] + ", compiled" * row["compiled"], row["images_per_second"]["softmax"]
        return {"network": name, "B": str(row["batch_size"]), "images/s, softmax": f"{speed:.0f}", **ratios}
    if part == "loop":
        speeds = {f"images/s {how}": f"{row[f'{key}_images_per_second']:.0f}" for how, key in LOOP_SPEEDS.items()}
        ratios = {f"{name} / bare": f"{row[f'{name}_over_bare']:.3f}" for name in ("trainer", "contiguous")}
        return {"network": row["model"], "B": str(row["batch_size"]), **speeds, **ratios}
    shape = {"B, d, C": ", ".join(map(str, row.shape))}
    if part == "evaluation":
        ratios = {name: f"{ratio:.2f}" for name, ratio in row.ratios.items()}
        return {**shape, "nn.Linear us": f"{row.linear_us:.1f}", **ratios}
    if part == "memory":
        sizes = {"peak MiB": f"{row.peak_mb:.1f}", "weight gradient MiB": f"{row.gradient_mb:.1f}"}
        plain = [other.peak_mb for other in found[part] if (other.shape, other.contender) == (row.shape, "plain")]
        ratio = {"/ plain": f"{row.peak_mb / plain[0]:.2f}" if plain else ""}
        return {**shape, "contender": row.contender, **sizes, **ratio}
    names = [name for name in CONTENDERS[1:] if any(name in each.timings for each in found["loss"])]
    ratios = {name: f"{row.timings[name].ratio:.2f}" if name in row.timings else "" for name in names}
    ratios["certified"] += f" (spread {row.timings['certified'].spread:.2f})"
    limit, reached = TARGETS.get(f"time, certified / plain, {row.shape} {row.kind}"), row.timings["certified"].ratio
    goal = ["", ""] if limit is None else [f"{limit:g}", MET[reached <= limit]]
    counts = {"evaluations": f"{row.evaluations:.2f}", "wrong": str(row.wrong_index), "target": goal[0], "": goal[1]}
    return {**shape, "case": row.kind, "plain ms": f"{row.timings['plain'].median_ms:.2f}", **ratios, **counts}


def tables(found: dict[str, list[Any]]) -> dict[str, str]:
    """Return markdown tables of what was measured so far, by title."""
    from cosify.evaluation import Table

    rows = {TITLES[part]: [cells(part, row, found) for row in rows] for part, rows in found.items()}
    every = {**rows, "Targets": verdicts(found)}
    return {title: f"{Table.of_rows(lines).lines()}\n" for title, lines in every.items() if lines}


def measure(args: BenchmarkArguments) -> Iterator[tuple[str, Any]]:
    """Yield each measurement with the name of its part.

    Memory comes first and training second, before `keep_heap` changes the allocator.
    """
    from scripts import benchmark_cases as ours

    small = args.size == "cpu quick"  # a smoke test
    repeats = args.steps
    for shape, names in MEMORY[args.size].items() if "memory" in args.parts else ():
        for name in names:
            if find_spec("pytorch_metric_learning") is not None or not name.startswith("PML"):
                measured = ours.measure_memory if args.device == "cuda" else ours.measure_memory_apart
                yield "memory", measured(name, shape, args.device, args.seed)
    if {"step", "loop"} & set(args.parts):
        from scripts.benchmark_training import LOOP_CASES, STEP_CASES, loop_costs, step_costs

        size = "small" if small else args.device
        compiler: Any = ("eager" if small else "inductor") if args.compile else None
        for case in STEP_CASES[size] if "step" in args.parts else ():
            for costs in step_costs(case, args.device, repeats, compiler):
                yield "step", costs
        if "loop" in args.parts:
            yield "loop", loop_costs(LOOP_CASES[size], args.device, repeats)
    keep_heap()
    for shape in EVALUATION[: 1 if small else None] if "evaluation" in args.parts else ():
        yield "evaluation", ours.run_evaluation(shape, repeats, args.device, args.seed)
    for shape in SHAPES[args.size] if "loss" in args.parts else ():
        for kind in KINDS if shape in WITH_ALL_KINDS else KINDS[:1]:
            # A step of a tiny problem takes about a millisecond.
            more = 10 if math.prod(shape) <= TINY and not small else 1
            yield "loss", ours.run_case(shape, kind, more * repeats, args.device, args.seed)


def keep_heap() -> None:
    """Keep glibc from returning freed tensors to the system, or each step would spend its time on page faults."""
    libc = ctypes.CDLL(None)
    assert libc.mallopt(M_TRIM_THRESHOLD, -1)
    assert libc.mallopt(M_MMAP_MAX, 0)


def main(args: BenchmarkArguments) -> None:
    """Measure, write, show, judge."""
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # read when torch is imported
    import torch

    from cosify.files import write_whole
    from cosify.training.environment import describe_environment

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    torch.set_num_threads(args.threads)
    if args.tf32:
        torch.set_float32_matmul_precision("high")
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    head = {
        "environment": describe_environment(torch.device(args.device), 1),
        "arguments": {**asdict(args), "repeats": args.steps},
    }
    found: dict[str, list[Any]] = {part: [] for part in TITLES}
    failed: list[str] = []
    for part, row in measure(args):
        found[part].append(row)
        logger.info("%s", ", ".join(f"{name} {value}" for name, value in cells(part, row, found).items() if value))
        failed += failures(row, args) if part == "loss" else []
        reached = numbers(found)
        targets = [{"target": name, "limit": limit, "measured": reached.get(name)} for name, limit in TARGETS.items()]
        content = {**head, **found, "targets": targets, "failures": failed}
        write_whole(folder / "benchmark.json", json.dumps(content, indent=2, default=asdict) + "\n")
        drawn = tables(found)
        write_whole(folder / "benchmark.md", "\n".join(f"## {title}\n\n{text}" for title, text in drawn.items()))
    logger.info("\n%s", drawn.get("Targets", ""))
    if failed:
        sys.exit("\n".join(["error: this run does not count", *failed]))


if __name__ == "__main__":
    from cosify.console import Command

    sys.path.insert(0, str(ROOT))  # for the modules beside this file
    Command(main, BenchmarkArguments, __doc__).run()
