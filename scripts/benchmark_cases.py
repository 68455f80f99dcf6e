"""Cases of scripts/benchmark.py for heads: time, exactness and memory of the loss, and time of evaluation."""

import gc
import logging
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.nn import Parameter
from torch.utils.benchmark import Timer

from cosify import CosineLinear, CosineSoftmaxLoss
from cosify.functional import expected_kappa, kappa_grid, ls_kappa

Shape = tuple[int, int, int]  # B, d, C
Kind = Literal["planted", "random", "tight"]

logger = logging.getLogger("benchmark")

FUSED = ("certified, fused", "fixed, fused")  # on a GPU
CONTENDERS = (
    "plain",
    "naive",
    "certified",
    "in-model",
    "fixed",
    "PML Normalized",
    "PML CosFace",
    "PML ArcFace",
    *FUSED,
)
KAPPA = 10.0  # of the contenders that do not estimate it
WARM_UP = 2  # rounds
MANY_CLASSES = 20_000  # with more, on the CPU, contenders with several [B, C] are left out; naive LS is timed twice
MIN_RUN_TIME = 0.05  # seconds
CLEAR_GAP = 1e-6  # of float64 energies; with a smaller one, candidates tie for float32 inputs


def wait_for(device: str) -> None:
    """Wait until the device has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def interleaved(
    steps: Mapping[str, Callable[[], object]], rounds: int, device: str, at_once: int = 1
) -> Iterator[tuple[int, str, float, int]]:
    """Yield round, contender, seconds and minor page faults of each step; a contender may be dropped in between.

    Args:
        steps: functions that make one step each.
        rounds: how often each contender gets its turn.
        device: is waited for before and after each turn.
        at_once: steps between two waits; more than one lets a GPU's queue run ahead, as it does in training.
    """
    for number in range(rounds):
        for name, step in list(steps.items()):
            wait_for(device)
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            begin = time.perf_counter()
            for _ in range(at_once):
                step()
            wait_for(device)
            seconds = time.perf_counter() - begin
            yield number, name, seconds / at_once, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults


def seconds_of(
    steps: Mapping[str, Callable[[], object]], repeats: int, device: str, at_once: int = 1
) -> dict[str, list[float]]:
    """Return the seconds of each contender's steps, after a round that warms up."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for number, name, seconds, _ in interleaved(steps, 1 + repeats, device, at_once):
        if number > 0:
            found[name].append(seconds)
    return found


@dataclass(frozen=True)
class Timing:
    """The steps of one contender: `ratio` of its median to plain's, `spread` max / min, `faults` the largest number."""

    median_ms: float
    ratio: float
    spread: float
    repeats: int
    faults: int


@dataclass(frozen=True)
class Row:
    """One problem.  `wrong_index` counts wrong kappas over all steps; the samples of `ties` are not judged."""

    shape: Shape
    kind: Kind
    timings: dict[str, Timing]
    evaluations: float
    wrong_index: int
    ties: int
    embedding_gradient_error: float
    weight_gradient_error: float


@dataclass(frozen=True)
class MemoryRow:
    """Peak of one step above inputs and parameters, and the weight's gradient within it, in MiB."""

    shape: Shape
    contender: str
    peak_mb: float
    gradient_mb: float


@dataclass(frozen=True)
class EvaluationRow:
    """Microseconds of a call of `nn.Linear`, and ratios of the heads' medians to it."""

    shape: Shape
    linear_us: float
    ratios: dict[str, float]


def fill_weight(weight: Tensor, kind: Kind, generator: Generator) -> None:
    """Draw class weights in place: N(0, 1), or clusters of ten with a cosine of 0.86."""
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=generator))
        if kind == "tight":
            C, d = weight.shape
            centres = torch.randn(-(-C // 10), d, generator=generator).repeat_interleave(10, dim=0)[:C]
            weight.mul_((1 / 0.86 - 1) ** 0.5).add_(centres.to(weight.device))


def draw_batch(weight: Tensor, B: int, kind: Kind, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return embeddings of norm 7 at some angle to their class' weight, and labels."""
    C, d = weight.shape
    labels = torch.randint(C, (B,), generator=generator)
    noise, spread = torch.randn(B, d, generator=generator), torch.randn(B, 1, generator=generator)
    target = F.normalize(weight.detach()[labels.to(weight.device)].cpu())
    angle = torch.deg2rad(torch.full((B, 1), 45.0) if kind == "tight" else 40 + 6 * spread)
    aside = F.normalize(noise - (noise * target).sum(dim=1, keepdim=True) * target)
    embedding = F.normalize(noise) if kind == "random" else angle.cos() * target + angle.sin() * aside
    return (7 * embedding).to(weight.device), labels.to(weight.device)


def grid_in_float64(embedding: Tensor, weight: Tensor, rows: int = 64) -> tuple[Tensor, Tensor]:
    """Return the best candidate of Eq. (10) in float64, [B], and by how much it beats the second."""
    prototypes, found = F.normalize(weight.detach().double()), []
    for unit in F.normalize(embedding.detach().double()).split(rows):
        cosine = unit @ prototypes.T
        averages = (torch.softmax(kappa * cosine, dim=1) @ prototypes for kappa in kappa_grid().double().tolist())
        found.append(torch.stack([0.5 * (unit - average).square().sum(dim=1) for average in averages]))
    energy = torch.cat(found, dim=1)
    least = energy.topk(2, dim=0, largest=False).values
    return energy.argmin(dim=0), least[1] - least[0]


def gradient_errors(embedding: Tensor, weight: Parameter, labels: Tensor, kappa: Tensor) -> tuple[float, float]:
    """Return the relative errors of the gradients that lie in `embedding` and `weight`, against float64 autograd."""
    x, w = (tensor.detach().double().requires_grad_() for tensor in (embedding, weight))
    F.cross_entropy(kappa.double().reshape(-1, 1) * (F.normalize(x) @ F.normalize(w).T), labels).backward()
    pairs = ((embedding.grad, x.grad), (weight.grad, w.grad))
    x_error, w_error = (
        float("inf") if ours is None or true is None else float((ours.double() - true).norm() / true.norm())
        for ours, true in pairs
    )
    return x_error, w_error


def contender(name: str, x: Tensor, weight: Parameter, y: Tensor) -> tuple[Callable[[], Tensor], Any]:
    """Return the loss to time, and its module, if any.  All share `weight`; those of PML have a copy.

    Raises:
        ImportError: for PML, if it is not installed.
    """
    C, d = weight.shape
    if name == "plain":
        return lambda: F.cross_entropy(KAPPA * F.normalize(x) @ F.normalize(weight).T, y), None
    if name == "naive":
        grid = kappa_grid(device=x.device)

        def naive() -> Tensor:
            unit, prototypes = F.normalize(x), F.normalize(weight)
            cosine = unit @ prototypes.T
            with torch.no_grad():
                averages = (torch.softmax(kappa * cosine, dim=1) @ prototypes for kappa in grid)
                energy = torch.stack([0.5 * (unit - average).square().sum(dim=1) for average in averages])
                kappa = grid[energy.argmin(dim=0)].unsqueeze(1)
            return F.cross_entropy(kappa * cosine, y)

        return naive, None
    if name.startswith("PML "):
        losses = import_module("pytorch_metric_learning.losses")
        other = {
            "PML Normalized": lambda: losses.NormalizedSoftmaxLoss(C, d, temperature=1 / KAPPA),
            "PML CosFace": lambda: losses.CosFaceLoss(C, d, scale=KAPPA),
            "PML ArcFace": lambda: losses.ArcFaceLoss(C, d, scale=KAPPA),
        }[name]().to(x.device)
        other.W = torch.nn.Parameter(weight.detach().T.contiguous())
        return lambda: other(x, y), other
    # Built with 2 classes and given the weight of C, since a million rows would be drawn twice.
    policy, start = (KAPPA, None) if name.startswith("fixed") else ("ls", expected_kappa(C))
    head = CosineLinear(d, 2, kappa=policy, start_kappa=start, device=x.device)
    head.num_classes, head.weight = C, weight
    if name == "in-model":
        return lambda: F.cross_entropy(head(x), y), head
    loss = CosineSoftmaxLoss(head, fused=name in FUSED)
    return lambda: loss(x, y), head


def run_case(shape: Shape, kind: Kind, repeats: int, device: str, seed: int) -> Row:
    """Time all contenders on one problem and check the certified one."""
    B, d, C = shape
    generator = torch.Generator().manual_seed(seed)
    weight = torch.nn.Parameter(torch.empty(C, d, device=device))
    fill_weight(weight, kind, generator)
    (before, labels_before), (x, y) = (draw_batch(weight, B, kind, generator) for _ in range(2))
    loss, head = contender("certified", before, weight, labels_before)
    loss()
    previous = head.last_kappa
    x.requires_grad_()
    best, gap = grid_in_float64(x, weight)
    clear, log_grid = gap > CLEAR_GAP, kappa_grid(device=x.device).log()

    many = device == "cpu" and C > MANY_CLASSES
    losses: dict[str, tuple[Callable[[], Tensor], Any]] = {}
    for name in CONTENDERS:
        if (many and (name == "in-model" or name.startswith("PML"))) or (device == "cpu" and name in FUSED):
            continue
        try:
            losses[name] = contender(name, x, weight, y)
        except ImportError:
            logger.info("%s left out: pytorch-metric-learning is not installed", name)
    passes = {name: forward_and_backward(loss) for name, (loss, _) in losses.items()}
    times: dict[str, list[float]] = {name: [] for name in losses}
    faults: dict[str, list[int]] = {name: [] for name in losses}
    # The heap grows once, here, rather than now and then in a timed step.
    if device == "cpu":
        torch.ones(12 * (B * C + C * d + B * d))
    wrong, errors = 0, (float("inf"), float("inf"))
    for number, name, seconds, faulted in interleaved(passes, WARM_UP + repeats, device):
        module = losses[name][1]
        if number >= WARM_UP:
            times[name].append(seconds)
            faults[name].append(faulted)
        if name == "certified":
            index = (module.last_kappa.log().unsqueeze(1) - log_grid).abs().argmin(dim=1)
            wrong += int(((index != best) & clear).sum())
            if number == 0:  # later the heap would grow between timed steps
                errors = gradient_errors(x, weight, y, module.last_kappa)
        if name == "naive" and many and number == WARM_UP + 1:
            del passes[name]
        x.grad = weight.grad = None
        if name.startswith("PML"):
            module.W.grad = None
        elif module is not None:
            module.last_kappa = previous
    plain = statistics.median(times["plain"])
    timings = {
        name: Timing(statistics.median(t) * 1e3, statistics.median(t) / plain, max(t) / min(t), len(t), max(f))
        for (name, t), f in zip(times.items(), faults.values(), strict=True)
    }
    evaluations = ls_kappa(x.detach(), weight.detach(), start=float(previous.median()), return_info=True).evaluations
    return Row(shape, kind, timings, evaluations, wrong, int((~clear).sum()), *errors)


def run_evaluation(shape: Shape, rounds: int, device: str, seed: int) -> EvaluationRow:
    """Time heads in evaluation mode, with as many calls in a round as fit in 50 ms.

    As after training, the embeddings lie near their classes, and the search starts from the kappa of another batch.
    """
    B, d, C = shape
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    heads: dict[str, torch.nn.Module] = {
        "nn.Linear": torch.nn.Linear(d, C, device=device),
        "fixed": CosineLinear(d, C, kappa=KAPPA, device=device),
        "LS per sample": (sampled := CosineLinear(d, C, kappa="ls", eval_kappa="sample", device=device)),
    }
    (before, _), (x, _) = (draw_batch(sampled.weight, B, "planted", generator) for _ in range(2))
    sampled.kappa.copy_(ls_kappa(before, sampled.weight.detach()).mean())
    timers = {name: Timer("head(x)", globals={"head": head.eval(), "x": x}) for name, head in heads.items()}
    with torch.no_grad():
        found = [
            {name: timer.blocked_autorange(min_run_time=MIN_RUN_TIME).median for name, timer in timers.items()}
            for _ in range(rounds)
        ]
    medians = {name: statistics.median(each[name] for each in found) for name in heads}
    linear = medians.pop("nn.Linear")
    return EvaluationRow(shape, 1e6 * linear, {name: median / linear for name, median in medians.items()})


def forward_and_backward(loss: Callable[[], Tensor]) -> Callable[[], None]:
    """Return a function that runs both passes."""
    return lambda: loss().backward()


def measure_memory_apart(name: str, shape: Shape, device: str, seed: int) -> MemoryRow:
    """Measure in a fork of this process, which has computed nothing yet and has the stock allocator."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(measure_memory(name, shape, device, seed)))
    process.start()
    sender.close()  # so that recv fails if the process does
    row: MemoryRow = receiver.recv()
    process.join()
    return row


def measure_memory(name: str, shape: Shape, device: str, seed: int) -> MemoryRow:
    """Return the peak memory of one step; on the CPU, call it in a process of its own."""
    generator = torch.Generator().manual_seed(seed)

    def problem(B: int, d: int, C: int) -> Callable[[], Tensor]:
        weight = torch.nn.Parameter(torch.empty(C, d, device=device))
        fill_weight(weight, "planted", generator)
        x, y = draw_batch(weight, B, "planted", generator)
        return contender(name, x.requires_grad_(), weight, y)[0]

    problem(4, shape[1], 50)().backward()  # loads kernels
    step = problem(*shape)
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
        step().backward()
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        before = _status_mb("VmRSS")
        step().backward()
        peak = _status_mb("VmHWM")
    return MemoryRow(shape, name, peak - before, shape[1] * shape[2] * 4 / 2**20)


def _status_mb(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024
