"""Time `CosineSoftmaxLoss` with LS kappa against plain softmax, naive LS and pytorch-metric-learning; check exactness.

See that everything works, in half a minute; ratios are printed, not judged:

    python scripts/benchmark.py --quick --output runs/benchmark

All shapes on one core, several minutes and some 6 GB of memory; on one GPU, with TF32 products:

    python scripts/benchmark.py
    python scripts/benchmark.py --device cuda --tf32 --output runs/benchmark-cuda

All contenders run forward and backward with respect to embeddings and weight, interleaved in one process.  Every run
fails, after writing its files, if kappa differs from the float64 grid's, if a gradient is wrong, or if page faults
spoilt the times.  The folder then holds benchmark.json and benchmark.md.
"""

import json
import logging
import os
import subprocess
import sys
from argparse import RawDescriptionHelpFormatter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cosify.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from scripts.benchmark_cases import Kind, MemoryRow, Row, Shape

logger = logging.getLogger("benchmark")
ROOT = Path(__file__).resolve().parents[1]

# glibc would hand every large tensor back to the system, and each step would spend its time on page faults.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4294967295", "MALLOC_TRIM_THRESHOLD_": "4294967295", "MALLOC_MMAP_MAX_": "0"}
ONE_CORE = {**MALLOC, "OMP_NUM_THREADS": "1"}
GRADIENT_ERROR = 1e-5
FAULTS = 1000  # in a step
QUICK_REPEATS = 3
KINDS: "tuple[Kind, ...]" = ("planted", "random", "tight")
SHAPES: "tuple[Shape, ...]" = (
    (128, 512, 100),
    (256, 2048, 1000),
    (256, 512, 10_000),
    (256, 2048, 8142),
    (128, 512, 93_431),
)
GPU_SHAPES: "tuple[Shape, ...]" = ((512, 512, 93_431),)
WITH_ALL_KINDS: "tuple[Shape, ...]" = ((256, 512, 10_000), (64, 128, 2000))
MEMORY: "tuple[tuple[Shape, tuple[str, ...]], ...]" = (
    ((256, 512, 10_000), ("plain", "PML Normalized", "fixed", "certified")),
    ((128, 512, 93_431), ("plain", "fixed", "certified")),
    ((64, 512, 1_000_000), ("certified",)),
)
QUICK_SHAPES: "dict[str, tuple[Shape, ...]]" = {
    "cpu": ((32, 64, 50), (64, 128, 2000)),
    # A GPU starts the kernels of a small problem more slowly than it computes them; one shows that much.
    "cuda": ((64, 128, 2000), (256, 2048, 1000), (256, 2048, 8142), *GPU_SHAPES),
}
QUICK_MEMORY: "dict[str, tuple[tuple[Shape, tuple[str, ...]], ...]]" = {
    "cpu": (((64, 128, 2000), ("plain", "certified")),),
    "cuda": tuple((shape, ("plain", "PML Normalized", "fixed", "certified")) for shape in GPU_SHAPES),
}


@dataclass(frozen=True)
class BenchmarkArguments:
    """What to measure."""

    output: str = field(default="runs/benchmark", metadata={"help": "Folder for benchmark.json and benchmark.md."})
    device: Literal["cpu", "cuda"] = field(default="cpu", metadata={"help": "One core, or one GPU."})
    quick: bool = field(
        default=False, metadata={"help": "Two small shapes and 3 repeats, for CI; on a GPU four shapes."}
    )
    repeats: int = field(default=9, metadata={"help": "Timed steps of each contender; a median needs about 9."})
    tf32: bool = field(default=False, metadata={"help": "TF32 products, on a GPU; gradients are then not judged."})
    seed: int = field(default=0, metadata={"help": "Of weights, labels and embeddings."})
    memory_of: str | None = field(default=None, metadata={"help": "Internal: measure CONTENDER:B,d,C and exit."})

    def __post_init__(self) -> None:
        if self.repeats < 2:
            raise InputError(f"repeats is {self.repeats}, expected at least 2, for a spread")
        if self.tf32 and self.device == "cpu":
            raise InputError("tf32 has no effect on the CPU; leave it out or add --device cuda")


@dataclass(frozen=True)
class Target:
    """A goal: `name` at `shape` and `kind` is to be at most `limit`; `over` names what a ratio divides by."""

    limit: float
    what: Literal["time", "memory", "memory above gradient", "evaluations", "wrong index"]
    shape: "Shape"
    kind: "Kind" = "planted"
    name: str = "certified"
    over: str | None = "plain"

    def label(self) -> str:
        """Describe the target in one line."""
        ratio = "" if self.over is None else f" / {self.over}"
        return f"{self.what}, {self.name}{ratio}, {self.shape} {self.kind}"

    def measured(self, rows: list["Row"], memory: list["MemoryRow"]) -> float | None:
        """Return what was measured, None if this run did not."""
        if self.what.startswith("memory"):
            peaks = {row.contender: row for row in memory if row.shape == self.shape}
            if self.name not in peaks or (self.over is not None and self.over not in peaks):
                return None
            if self.over is None:
                return peaks[self.name].peak_mb - peaks[self.name].gradient_mb
            return peaks[self.name].peak_mb / peaks[self.over].peak_mb
        for row in rows:
            if (row.shape, row.kind) != (self.shape, self.kind):
                continue
            if self.what == "evaluations":
                return row.evaluations
            if self.what == "wrong index":
                return float(row.wrong_index)
            if self.name in row.timings and self.over in row.timings:
                return row.timings[self.name].median_ms / row.timings[self.over].median_ms
        return None


TARGETS = (
    Target(2.3, "time", (128, 512, 100)),
    Target(1.8, "time", (256, 2048, 1000)),
    Target(2.0, "time", (256, 512, 10_000)),
    Target(2.1, "time", (256, 512, 10_000), "random"),
    Target(3.0, "time", (256, 512, 10_000), "tight"),
    Target(1.9, "time", (256, 2048, 8142)),
    Target(2.3, "time", (128, 512, 93_431)),
    Target(0.45, "time", (128, 512, 100), over="naive"),
    Target(0.28, "time", (256, 2048, 1000), over="naive"),
    Target(0.28, "time", (256, 512, 10_000), over="naive"),
    Target(0.30, "time", (256, 2048, 8142), over="naive"),
    Target(0.34, "time", (128, 512, 93_431), over="naive"),
    Target(1.0, "time", (256, 512, 10_000), name="fixed", over="PML Normalized"),
    Target(0.20, "memory", (256, 512, 10_000), name="fixed", over="PML Normalized"),
    Target(0.22, "memory", (128, 512, 93_431)),
    Target(0.25, "memory", (256, 512, 10_000)),
    Target(64.0, "memory above gradient", (64, 512, 1_000_000), over=None),
    Target(4.2, "evaluations", (256, 512, 10_000), over=None),
    Target(4.8, "evaluations", (256, 512, 10_000), "random", over=None),
    Target(8.0, "evaluations", (256, 512, 10_000), "tight", over=None),
    Target(0.0, "wrong index", (256, 512, 10_000), "tight", over=None),
    Target(1.6, "time", (512, 512, 93_431)),  # of a GPU with TF32,
)


def failures(row: "Row", args: BenchmarkArguments) -> list[str]:
    """Return what makes this run worthless."""
    where, found = f"{row.shape} {row.kind}", []
    if row.wrong_index > 0:
        found.append(f"{where}: {row.wrong_index} kappas differ from the float64 grid's")
    for name, error in (("embedding", row.embedding_gradient_error), ("weight", row.weight_gradient_error)):
        if not args.tf32 and not error < GRADIENT_ERROR:
            found.append(f"{where}: gradient of {name} is off by {error:.1e}, expected below {GRADIENT_ERROR:.0e}")
    for name, timing in row.timings.items():
        if not args.quick and args.device == "cpu" and timing.faults >= FAULTS:
            found.append(f"{where}: {name} had {timing.faults} page faults in a step, expected below {FAULTS}")
    return found


def measure_memory_apart(args: BenchmarkArguments, name: str, shape: "Shape") -> "MemoryRow":
    """Start a process with the stock allocator for one row of the memory table; on a GPU torch counts, in this one."""
    from scripts.benchmark_cases import MemoryRow, measure_memory

    if args.device == "cuda":
        return measure_memory(name, shape, args.device, args.seed)
    problem = f"{name}:{','.join(map(str, shape))}"
    command = [sys.executable, __file__, "--memory_of", problem, "--device", args.device, "--seed", str(args.seed)]
    environment = {key: value for key, value in os.environ.items() if key not in MALLOC}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    return MemoryRow(shape, name, found["peak_mb"], found["gradient_mb"])


def verdict(target: Target, measured: float | None) -> str:
    """Return "met" or "missed", "" for what was not measured."""
    if measured is None:
        return ""
    return "met" if measured <= target.limit else "missed"


def timing_table(rows: list["Row"]) -> list[list[str]]:
    """Return the header and one line a problem; ratios are to plain, the spread is the slowest to the fastest step."""
    from scripts.benchmark_cases import CONTENDERS

    others = CONTENDERS[1:]
    lines = [["B, d, C", "case", "plain ms", *others, "evaluations", "wrong", "target", ""]]
    for row in rows:
        ratios = {name: f"{timing.ratio:.2f}" for name, timing in row.timings.items()}
        ratios["certified"] += f" (spread {row.timings['certified'].spread:.2f})"
        # The targets' first match for certified / plain; those of a GPU have a shape of their own.
        goals = [t for t in TARGETS if (t.what, t.over, t.shape, t.kind) == ("time", "plain", row.shape, row.kind)]
        goal = [f"{goals[0].limit}", verdict(goals[0], row.timings["certified"].ratio)] if goals else ["", ""]
        lines.append(
            [", ".join(map(str, row.shape)), row.kind, f"{row.timings['plain'].median_ms:.2f}"]
            + [ratios.get(name, "") for name in others]
            + [f"{row.evaluations:.2f}", str(row.wrong_index), *goal]
        )
    return lines


def memory_table(memory: list["MemoryRow"]) -> list[list[str]]:
    """Return the header and one line a measurement."""
    lines = [["B, d, C", "contender", "peak MiB", "weight gradient MiB", "/ plain"]]
    plain = {row.shape: row.peak_mb for row in memory if row.contender == "plain"}
    for row in memory:
        ratio = f"{row.peak_mb / plain[row.shape]:.2f}" if row.shape in plain else ""
        sizes = [f"{row.peak_mb:.1f}", f"{row.gradient_mb:.1f}"]
        lines.append([", ".join(map(str, row.shape)), row.contender, *sizes, ratio])
    return lines


def target_table(rows: list["Row"], memory: list["MemoryRow"]) -> list[list[str]]:
    """Return the header and one line a target that this run measured."""
    lines = [["target", "at most", "measured", ""]]
    for target in TARGETS:
        measured = target.measured(rows, memory)
        if measured is not None:
            lines.append([target.label(), f"{target.limit:g}", f"{measured:.2f}", verdict(target, measured)])
    return lines


def as_markdown(lines: list[list[str]]) -> str:
    """Return a markdown table of a header and lines."""
    header, *rest = lines
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, ["---"] * len(header), *rest))


def as_rich(lines: list[list[str]]) -> "Table":
    """Return a table for the terminal."""
    from rich.table import Table

    table = Table(*lines[0])
    for line in lines[1:]:
        table.add_row(*line)
    return table


def main(args: BenchmarkArguments) -> None:
    """Measure, write, show, judge."""
    import torch

    from scripts.benchmark_cases import measure_memory, run_case

    torch.set_num_threads(1)
    if args.tf32:
        torch.set_float32_matmul_precision("high")
    if args.memory_of is not None:
        name, _, numbers = args.memory_of.partition(":")
        B, d, C = map(int, numbers.split(","))
        sys.stdout.write(json.dumps(asdict(measure_memory(name, (B, d, C), args.device, args.seed))))
        return

    from rich import get_console

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    Path(args.output).mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    memory: list[MemoryRow] = []
    repeats = QUICK_REPEATS if args.quick and args.device == "cpu" else args.repeats
    for shape in QUICK_SHAPES[args.device] if args.quick else SHAPES + GPU_SHAPES * (args.device == "cuda"):
        for kind in KINDS if shape in WITH_ALL_KINDS else KINDS[:1]:
            row = run_case(shape, kind, repeats, args.device, args.seed)
            most = max(row.timings, key=lambda name: row.timings[name].faults)
            logger.info(
                "%s %s: plain %.2f ms, certified %.2f of it, %.2f evaluations, %d wrong, at most %d page faults (%s)",
                *(shape, kind, row.timings["plain"].median_ms, row.timings["certified"].ratio, row.evaluations),
                *(row.wrong_index, row.timings[most].faults, most),
            )
            rows.append(row)
            write(args, rows, memory)
    pml = any("PML Normalized" in row.timings for row in rows)
    for shape, names in QUICK_MEMORY[args.device] if args.quick else MEMORY:
        for name in names:
            if pml or not name.startswith("PML"):
                memory.append(measure_memory_apart(args, name, shape))
                logger.info("%s %s: peak %.1f MiB", shape, name, memory[-1].peak_mb)
    write(args, rows, memory)
    times, targets = timing_table(rows), target_table(rows, memory)
    # The whole table is too wide for most terminals.
    get_console().print(as_rich(targets if len(targets) > 1 else [line[:5] for line in times]))
    failed = [failure for row in rows for failure in failures(row, args)]
    if failed:
        sys.exit("\n".join(["error: this run does not count", *failed]))


def write(args: BenchmarkArguments, rows: list["Row"], memory: list["MemoryRow"]) -> None:
    """Write what was measured so far."""
    import torch

    from cosify.files import write_whole
    from cosify.training.environment import describe_environment

    folder = Path(args.output)
    content = {
        "environment": describe_environment(torch.device(args.device), 1),
        "arguments": asdict(args),
        "rows": [asdict(row) for row in rows],
        "memory": [asdict(row) for row in memory],
        "targets": [asdict(t) | {"measured": t.measured(rows, memory)} for t in TARGETS],
        "failures": [failure for row in rows for failure in failures(row, args)],
    }
    write_whole(folder / "benchmark.json", json.dumps(content, indent=2) + "\n")
    tables = {
        "Time of forward and backward, as ratios to plain": timing_table(rows),
        "Memory of one step above inputs and parameters": memory_table(memory),
        "Targets": target_table(rows, memory),
    }
    parts = [f"## {title}\n\n{as_markdown(lines)}" for title, lines in tables.items() if len(lines) > 1]
    write_whole(folder / "benchmark.md", "\n".join(parts))


def parse_arguments() -> BenchmarkArguments:
    """Return the command line's arguments."""
    from transformers import HfArgumentParser

    parser = HfArgumentParser(BenchmarkArguments, description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    try:
        (parsed,) = parser.parse_args_into_dataclasses()
    except ValueError as error:
        parser.error(str(error))
    arguments: BenchmarkArguments = parsed
    return arguments


if __name__ == "__main__":
    arguments = parse_arguments()
    if (arguments.memory_of, arguments.device) == (None, "cpu") and any(
        os.environ.get(key) != value for key, value in ONE_CORE.items()
    ):
        # glibc and OpenMP read these when the process starts.
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **ONE_CORE})
    sys.path.insert(0, str(ROOT))  # for scripts.benchmark_cases
    main(arguments)
