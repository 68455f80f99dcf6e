"""Test and measure on a GPU machine without network that is lent for minutes; what matters most comes first.

    python scripts/gpu_suite.py --minutes 9 --output runs/gpu_suite
    python scripts/gpu_suite.py --minutes 9 --data FOLDER --output runs/gpu_suite

Choose stages:

    python scripts/gpu_suite.py --minutes 4 --stages environment step --output runs/gpu_suite

See that everything works, on the CPU, in a minute or two:

    python scripts/gpu_suite.py --smoke --output runs/gpu_suite_smoke

Each stage is a process with a share of the time.  Time that it does not use goes to the next stage; a stage that takes
too long is ended.  Results are written to OUTPUT while a stage runs, eight files at most: environment.json,
gpu_tests.txt, benchmark.json, benchmark.md, step.json, loop.json, cifar100_gpu_40.jsonl and, about the stages,
suite.json.  The training skips the runs that are in cifar100_gpu_40.jsonl already; a run that is cut off is left out.
"""

import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

BEGIN = time.monotonic()  # before the imports, which take seconds

from cosify.errors import InputError  # noqa: E402
from cosify.files import write_json  # noqa: E402
from cosify.settings import flag  # noqa: E402

logger = logging.getLogger("cosify")
ROOT = Path(__file__).resolve().parents[1]
# Seconds of nine minutes.  All stages but the training need less, and leave it the rest.
SHARES = {"environment": 45, "tests": 130, "benchmark": 90, "step": 120, "loop": 50, "training": 105}
RECIPE = "scripts/recipes/cifar100_gpu_40.yaml"
HEADS = ["ls", "softmax", "2kappa", "20", "1", "60", "5", "trainable"]  # of the table, the most important first
SMI = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,power.limit", "--format=csv,noheader"]
GRACE = 5.0  # seconds from SIGTERM to SIGKILL
TAIL = 40  # lines of a failed stage
SMOKE_MINUTES = 15.0  # far more than it takes, also on a busy machine


@dataclass(frozen=True)
class SuiteArguments:
    """Settings: what to run, for how long, and where to write."""

    output: str = flag("runs/gpu_suite", "Folder of the results. Default runs/gpu_suite.")
    minutes: float = flag(9.0, "Minutes for all stages. Default 9: on the lent machine a command may take ten.")
    data: str | None = flag(None, "CIFAR-100, as cosify train takes it. Default: no training.")
    stages: list[str] = flag(list(SHARES), "Stages to run. Default: all.")
    smoke: bool = flag(False, "Run every stage on the CPU, with little to do. Default: off.")

    def __post_init__(self) -> None:
        unknown = sorted(set(self.stages) - set(SHARES))
        if unknown:
            raise InputError(f"stages has {unknown}, expected some of {list(SHARES)}")
        if not self.minutes > 0:
            raise InputError(f"minutes is {self.minutes}, expected a number above 0; nine are enough for everything")


@dataclass(frozen=True)
class Stage:
    """A stage: a program and its results.

    Attributes:
        name: of the stage.
        command: arguments of Python.
        results: its files in the working folder, with their names in OUTPUT.
        may_be_cut: whether it may run out of time without failing.
    """

    name: str
    command: list[str]
    results: Mapping[str, str]
    may_be_cut: bool = False


@dataclass(frozen=True)
class Ended:
    """How a stage ended.  `said` is its last line outside of tables; `tail` the last lines of a failed stage."""

    stage: str
    status: Literal["passed", "failed", "late", "cut"]
    exit_code: int
    seconds: float
    limit: float
    said: str
    tail: str = ""


def main(args: SuiteArguments) -> None:
    """Run the stages, each until it ends or its share of the time is over."""
    from rich.table import Table
    from rich.text import Text

    from cosify.console import set_up_logging, show

    set_up_logging()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that a running stage is ended too
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    ended: list[Ended] = []
    table = Table("stage", "", "seconds", "limit", "last words")
    with tempfile.TemporaryDirectory(prefix="cosify-gpu-suite-", ignore_cleanup_errors=True) as folder:
        stages = [stage for stage in all_stages(args, Path(folder), output) if stage.name in args.stages]
        scale = 60 * (SMOKE_MINUTES if args.smoke else args.minutes) / sum(SHARES[stage.name] for stage in stages)
        deadline = BEGIN
        for stage in stages:
            deadline += scale * SHARES[stage.name]
            one = run(stage, Path(folder), output, deadline, environment(args, folder))
            logger.info("%s: %s after %.0f of %.0f s: %s", one.stage, one.status, one.seconds, one.limit, one.said)
            table.add_row(one.stage, one.status, f"{one.seconds:.0f}", f"{one.limit:.0f}", Text(one.said))
            ended.append(one)
            report = {"arguments": asdict(args), "stages": [asdict(one) for one in ended]}
            write_json(output / "suite.json", report)
    failed = [one for one in ended if one.status in ("failed", "late")]
    for one in failed:
        logger.info("\n%s: %s, exit status %d\n%s", one.stage, one.status, one.exit_code, one.tail)
    show(table)
    if failed:
        sys.exit(1)


def all_stages(args: SuiteArguments, folder: Path, output: Path) -> list[Stage]:
    """Return the stages, the most important first; runs of an earlier training in `output` are kept."""
    device = "cpu" if args.smoke else "cuda"
    write = "import sys; from scripts.gpu_suite import write_environment; write_environment(*sys.argv[1:])"
    pytest = ["-m", "pytest", "-m", "gpu", "tests/gpu", "-q", "--durations=5", "-p", "no:cacheprovider"]
    pytest += ["-o", "faulthandler_timeout=60", f"--junitxml={folder / 'tests.xml'}"]
    heads, threads = (["--parts", "memory"], "1") if args.smoke else (["--tf32"], "4")

    def benchmark(name: str, results: dict[str, str], *flags: str) -> Stage:
        command = ["scripts/benchmark.py", "--device", device, "--quick", "--output", str(folder / name), *flags]
        return Stage(name, command, {f"{name}/{source}": target for source, target in results.items()})

    repeats = [] if args.smoke else ["--repeats", "15"]
    step = ["--parts", "step", "--compile", *repeats]
    loop = ["--parts", "loop", "--threads", threads, *repeats]
    stages = [
        Stage("environment", ["-c", write, device, str(folder / "found.json")], {"found.json": "environment.json"}),
        Stage("tests", pytest, {"tests.txt": "gpu_tests.txt"}),
        benchmark("benchmark", {"benchmark.json": "benchmark.json", "benchmark.md": "benchmark.md"}, *heads),
        benchmark("step", {"benchmark.json": "step.json"}, *step),
        benchmark("loop", {"benchmark.json": "loop.json"}, *loop),
    ]
    compare, settings = folder / "compare", ["--config", RECIPE, "--heads", *HEADS]
    runs, data = f"{Path(RECIPE).stem}.jsonl", None if args.data is None else str(Path(args.data).resolve())
    if args.smoke:
        (folder / "smoke.yaml").write_text("epochs: 2\n")
        runs, data, settings = "smoke.jsonl", "synthetic", ["--config", str(folder / "smoke.yaml"), "--heads", "ls"]
    if data is not None:
        compare.mkdir()
        if (output / runs).exists():
            (compare / "runs.jsonl").write_bytes((output / runs).read_bytes())
        command = ["scripts/compare.py", *settings, "--data", data, "--seeds", "0", "--output", str(compare)]
        stages.append(Stage("training", command, {"compare/runs.jsonl": runs}, may_be_cut=not args.smoke))
    return stages


def environment(args: SuiteArguments, folder: str) -> dict[str, str]:
    """Return the variables of the stages: this checkout, offline; in a smoke run one thread and no GPU.

    Args:
        args: of the suite.
        folder: for temporary files, since a killed program does not remove its own.
    """
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    more = {"OMP_NUM_THREADS": "1", "GPU_TEST_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""} if args.smoke else {}
    offline = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "TMPDIR": folder}
    return {**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **offline, **more}


def run(stage: Stage, folder: Path, output: Path, deadline: float, variables: Mapping[str, str]) -> Ended:
    """Run a stage until it ends or the deadline comes; copy its results to `output` while it runs."""
    begin, log = time.monotonic(), folder / f"{stage.name}.txt"
    brought: dict[str, float] = {}
    command = [sys.executable, *stage.command]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=variables, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
                bring(stage, folder, output, brought)
            late = process.poll() is None
        finally:
            end_group(process)
    bring(stage, folder, output, brought)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = next((line.strip() for line in reversed(lines) if re.fullmatch(r"[^|]*\w[^|]*", line)), "")
    status: Any = ("cut" if stage.may_be_cut else "late") if late else "failed" if process.returncode else "passed"
    tail = "\n".join(lines[-TAIL:]) if status in ("failed", "late") else ""
    seconds, limit = (round(end - begin, 1) for end in (time.monotonic(), deadline))
    return Ended(stage.name, status, process.returncode, seconds, limit, said, tail)


def bring(stage: Stage, folder: Path, output: Path, brought: dict[str, float]) -> None:
    """Copy the files that a stage has written since the last call."""
    from cosify.files import write_whole

    for source, name in stage.results.items():
        path = folder / source
        if path.exists() and brought.get(name) != path.stat().st_mtime:
            brought[name] = path.stat().st_mtime
            write_whole(output / name, path.read_text(encoding="utf-8", errors="replace"))


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started: first by SIGTERM, so that it removes its temporary folders."""
    for number, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
            process.wait(seconds)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def write_environment(device: str, path: str) -> None:
    """Write what this machine is, in a process of its own, so that the suite itself takes no GPU memory."""
    from importlib.util import find_spec

    import torch

    from cosify.training.environment import describe_environment

    found: dict[str, Any] = describe_environment(torch.device(device), 1)
    for package in ("triton", "pytorch_metric_learning"):
        spec = find_spec(package)
        found["packages"][package] = None if spec is None else getattr(__import__(package), "__version__", "unknown")
    found["cuda"], found["cudnn"], found["cores"] = torch.version.cuda, torch.backends.cudnn.version(), os.cpu_count()
    if device == "cuda":
        found["nvidia_smi"] = subprocess.run(SMI, capture_output=True, text=True, check=True).stdout.strip()
    write_json(Path(path), found)
    sys.stdout.write(f"{found.get('nvidia_smi', device)}, torch {torch.__version__}\n")


if __name__ == "__main__":
    from cosify.console import Command

    Command(main, SuiteArguments, __doc__).run()
