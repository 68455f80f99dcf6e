"""The training loop: Accelerate runs it on one process or many, timm gives model, optimiser and schedule."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosify.data import (
    BUILT_IN,
    Augmentation,
    ImageSet,
    Normalization,
    Normalizer,
    Shard,
    augmenter,
    decode_splits,
    epoch_seed,
    eval_batches,
    load_splits,
    num_train_batches,
    train_batches,
)
from cosify.models import find_heads
from cosify.training.arguments import TrainArguments
from cosify.training.environment import describe_environment
from cosify.training.evaluate import Evaluation, evaluate
from cosify.training.kappa_statistics import KappaStatistics, KappaSummary
from cosify.training.model import ModelChoice, build_model, default_image_size, normalization_of, record_preprocessing
from cosify.training.optimizer import make_optimizer, make_schedule
from cosify.training.run_folder import RunFolder

logger = logging.getLogger(__name__)

SMOKE_EPOCHS = 10
EDGE_WARNING = 0.05  # share of kappa* at an edge of the grid from which the estimate is not to be trusted
DISPLAY_SECONDS = 0.5  # fetching numbers for the progress bar waits for the device


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves in memory; its files hold the rest.

    Attributes:
        folder: of the run.
        model: trained, unwrapped, float32, on the training device.
        label_names: name of each class.
        evaluation: on the test split, after the last epoch.
        kappa: of the last epoch's training samples; None for a stock softmax head.
        test: the test split, not normalised.
        normalization: of the model's inputs.
        seconds: from the first step to the last evaluation.
        is_main: whether this process is the one that writes files.
    """

    folder: RunFolder
    model: nn.Module
    label_names: tuple[str, ...]
    evaluation: Evaluation
    kappa: KappaSummary | None
    test: ImageSet
    normalization: Normalization
    seconds: float
    is_main: bool


def train(args: TrainArguments) -> TrainResult:
    """Train a classifier and write the run folder, except for `export/`.

    Args:
        args: the settings.

    Raises:
        ValueError: for data, model or settings that do not work; the message says what to change.
        FileExistsError: if the run folder is in use.
    """
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    if args.smoke:
        args = replace(args, data="synthetic", epochs=SMOKE_EPOCHS, warmup_epochs=min(args.warmup_epochs, 0.5))
    # Without `cpu`, accelerate 1.15 lets processes on the CPU run side by side, each believing it is alone.
    accelerator: Any = Accelerator(mixed_precision=args.mixed_precision, cpu=not torch.accelerator.is_available())
    set_seed(args.seed)
    choice = ModelChoice.of(args)
    fallback_size = default_image_size(choice.name)
    folder = _make_folder(accelerator, args, choice)
    train_set, test_set, label_names = _load_data(accelerator, args, choice, fallback_size)
    shard = Shard(accelerator.process_index, accelerator.num_processes)
    steps_per_epoch = num_train_batches(len(train_set), args.batch_size, shard.world_size)

    model = build_model(choice, args, len(label_names), train_set.images.shape[1])
    normalization = normalization_of(model, args, train_set.images)
    record_preprocessing(model, normalization, train_set.images.shape[1:])
    # On the GPU alone: a CPU would be 1.2 to 1.5 times as fast with it, but the backward pass of ResNets with stages of
    # fewer than 8 channels then ends in a `double free` (torch 2.14).
    memory_format = torch.channels_last if accelerator.device.type == "cuda" else torch.contiguous_format
    model.to(memory_format=memory_format)
    optimizer = make_optimizer(args, model)
    schedule = make_schedule(args, optimizer, steps_per_epoch)
    if accelerator.is_main_process:
        config = _resolved(args, choice, normalization, train_set, test_set, label_names, model)
        folder.write_config(config)
        folder.write_environment(describe_environment(accelerator.device, shard.world_size))
    model, optimizer = accelerator.prepare(model, optimizer)

    normalizer = normalization.on(accelerator.device)
    run = _Run(accelerator, args, model, optimizer, schedule, normalizer, shard, steps_per_epoch, memory_format)
    start = time.perf_counter()
    with _progress(accelerator, args.epochs * steps_per_epoch) as progress:
        for epoch in range(args.epochs):
            record, kappa = run.train_epoch(train_set, epoch, progress)
            evaluation = run.evaluate(test_set)
            record.update(
                test_loss=evaluation.loss, test_accuracy=evaluation.accuracy, mean_angle_deg=evaluation.mean_angle_deg
            )
            if accelerator.is_main_process:
                folder.append_metrics(record)
                _log_epoch(record, kappa, args.epochs)
            _save_state(accelerator, folder)
    seconds = time.perf_counter() - start
    unwrapped = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    vars(unwrapped).pop("forward", None)  # under bf16 accelerate 1.15 leaves the method behind as an attribute
    unwrapped.to(memory_format=torch.contiguous_format)  # the only one that safetensors stores
    return TrainResult(
        folder=folder,
        model=unwrapped,
        label_names=label_names,
        evaluation=evaluation,
        kappa=kappa,
        test=test_set,
        normalization=normalization,
        seconds=seconds,
        is_main=bool(accelerator.is_main_process),
    )


@dataclass
class _Run:
    """What every epoch of a run needs."""

    accelerator: Any
    args: TrainArguments
    model: Any
    optimizer: Any
    schedule: Any
    normalizer: Normalizer
    shard: Shard
    steps_per_epoch: int
    memory_format: torch.memory_format

    def all_sum(self, values: Tensor) -> Tensor:
        """Return the sum over all ranks; on one process the tensor itself."""
        if self.shard.world_size == 1:
            return values
        summed: Tensor = self.accelerator.reduce(values, reduction="sum")
        return summed

    def train_epoch(self, data: ImageSet, epoch: int, progress: "_Bar") -> tuple[dict[str, Any], KappaSummary | None]:
        """Run the steps of an epoch; return the record for metrics.jsonl, without test figures, and kappa's summary."""
        device, args = self.accelerator.device, self.args
        generator = torch.Generator(device).manual_seed(epoch_seed(args.seed, epoch, self.shard.rank + 1))
        augment = augmenter(_augmentation(args), data.images.shape[-1], generator)
        heads = list(find_heads(self.accelerator.unwrap_model(self.model)).values())
        kappas = KappaStatistics(device)
        sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct, samples
        step = epoch * self.steps_per_epoch
        start = time.perf_counter()
        self.model.train()
        batches = train_batches(data, args.batch_size, epoch=epoch, seed=args.seed, shard=self.shard)
        for images, labels in batches:
            logits = self.model(self.normalizer(augment(images)).contiguous(memory_format=self.memory_format))
            loss = F.cross_entropy(logits.float(), labels)
            self.optimizer.zero_grad()
            self.accelerator.backward(loss)
            self.optimizer.step()
            step += 1
            self.schedule.step_update(step)
            sums[0] += loss.detach() * len(labels)
            sums[1] += (logits.detach().argmax(dim=1) == labels).sum()
            sums[2] += len(labels)
            for head in heads:
                if head.last_kappa is not None:
                    kappas.update(head.last_kappa)
            progress.step(f"epoch {epoch + 1}", sums, kappas)
        total_loss, correct, samples = self.all_sum(sums).tolist()
        seconds = time.perf_counter() - start
        kappa = kappas.summary(self.all_sum, self.shard.world_size)
        record = {
            "epoch": epoch + 1,
            "step": step,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": total_loss / samples,
            "train_accuracy": correct / samples,
            "seconds": seconds,
            "images_per_second": samples / seconds,
        }
        if kappa is not None:
            record.update({f"kappa_{name}": value for name, value in asdict(kappa).items()})
        return record, kappa

    def evaluate(self, data: ImageSet) -> Evaluation:
        """Measure the model on `data`, each rank on its share."""
        # Unwrapped: shares may differ by a batch, and DDP's forward would wait for the other ranks.
        model = self.accelerator.unwrap_model(self.model)
        if self.shard.world_size > 1:
            _take_buffers_of_main(model)
        batches = eval_batches(data, max(self.args.batch_size, 256), self.shard)
        normalized = (
            (self.normalizer(images).contiguous(memory_format=self.memory_format), labels) for images, labels in batches
        )
        return evaluate(model, normalized, device=self.accelerator.device, all_sum=self.all_sum)


def _take_buffers_of_main(model: nn.Module) -> None:
    """Give all ranks the buffers (batch norm, kappa) of the main process, which are the ones that get saved.

    DDP does so at the start of the next step, which after the last one never comes.
    """
    from accelerate.utils import broadcast

    for buffer in model.buffers():
        broadcast(buffer)


class _Bar:
    """A line with loss, accuracy and kappa on the main process' terminal; elsewhere nothing, not even a sync."""

    def __init__(self, bar: Any, total_steps: int) -> None:
        self._bar = bar
        self._task = bar.add_task("start", total=total_steps) if bar is not None else None
        self._shown = time.perf_counter()

    def step(self, description: str, sums: Tensor, kappas: KappaStatistics) -> None:
        """Count a step; now and then fetch the epoch's sums of loss, correct and samples, and the last kappa."""
        if self._bar is None:
            return
        self._bar.advance(self._task)
        if time.perf_counter() - self._shown < DISPLAY_SECONDS:
            return
        loss, correct, samples = sums.tolist()
        kappa = kappas.latest()
        shown = f"{description}  loss {loss / samples:.3f}  accuracy {correct / samples:.1%}"
        self._bar.update(self._task, description=shown + ("" if kappa is None else f"  kappa {kappa:.2f}"))
        self._shown = time.perf_counter()


@contextmanager
def _progress(accelerator: Any, total_steps: int) -> Iterator[_Bar]:
    if not _on_terminal(accelerator):
        yield _Bar(None, total_steps)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        yield _Bar(bar, total_steps)


def _on_terminal(accelerator: Any) -> bool:
    from rich import get_console

    return bool(accelerator.is_main_process) and get_console().is_terminal


def _augmentation(args: TrainArguments) -> Augmentation:
    if args.augment != "auto":
        return args.augment
    return "crop" if args.data in BUILT_IN else "crop-flip"


def _make_folder(accelerator: Any, args: TrainArguments, choice: ModelChoice) -> RunFolder:
    """Create the run folder on the main process; every rank learns its path, or the error."""
    from accelerate.utils import broadcast_object_list

    answer: list[Path | OSError] = [Path()]
    if accelerator.is_main_process:
        name = f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{Path(args.data).name}-{choice.name}-"
        path = Path(args.output) if args.output is not None else Path("runs") / (name + _head_name(args))
        try:
            answer = [RunFolder.create(path, overwrite=args.overwrite).path]
        except OSError as error:
            answer = [error]
    broadcast_object_list(answer)
    if isinstance(answer[0], OSError):
        raise answer[0]
    return RunFolder(answer[0])


def _head_name(args: TrainArguments) -> str:
    return args.kappa if args.head == "cos" else "softmax"


def _load_data(
    accelerator: Any, args: TrainArguments, choice: ModelChoice, fallback_size: int
) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
    import datasets

    if not _on_terminal(accelerator):
        datasets.disable_progress_bars()
    with accelerator.local_main_process_first():  # the others then find the prepared files in datasets' cache
        splits = load_splits(args.data, image_column=args.image_column, label_column=args.label_column)
    if args.limit_train is not None:
        splits = splits.limit_train(args.limit_train)
    train_set, test_set = decode_splits(
        splits,
        image_size=choice.image_size,
        fallback_size=fallback_size,
        device=accelerator.device,
        show_progress=_on_terminal(accelerator),
    )
    return train_set, test_set, splits.label_names


def _resolved(
    args: TrainArguments,
    choice: ModelChoice,
    normalization: Normalization,
    train_set: ImageSet,
    test_set: ImageSet,
    label_names: tuple[str, ...],
    model: nn.Module,
) -> dict[str, Any]:
    return {
        "script": "train",
        "arguments": asdict(args),
        "model": choice.name,
        "model_kwargs": choice.kwargs,
        "head": _head_name(args),
        "augment": _augmentation(args),
        "normalization": asdict(normalization),
        "image_shape": list(train_set.images.shape[1:]),
        "num_train": len(train_set),
        "num_test": len(test_set),
        "num_classes": len(label_names),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def _save_state(accelerator: Any, folder: RunFolder, name: Literal["last"] = "last") -> None:
    """Write `checkpoints/last`: every rank its part, aside, then the main process puts it in place."""
    target = folder.checkpoints / name
    aside = folder.checkpoints / f".{name}.new"
    accelerator.save_state(str(aside))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        folder.put_in_place(aside, target)
    accelerator.wait_for_everyone()


def _log_epoch(record: dict[str, Any], kappa: KappaSummary | None, epochs: int) -> None:
    shown = (
        f"epoch {record['epoch']}/{epochs}  loss {record['train_loss']:.3f}  train {record['train_accuracy']:.1%}"
        f"  test {record['test_accuracy']:.1%}  {record['images_per_second']:.0f} images/s"
    )
    if kappa is None:
        logger.info(shown)
        return
    logger.info("%s  kappa %.2f (median %.2f)", shown, kappa.mean, kappa.median)
    for edge, share in (("lower", kappa.low_edge), ("upper", kappa.high_edge)):
        if share > EDGE_WARNING:
            logger.warning(
                "%.0f %% of kappa lie at the %s edge of the search grid: the mean hides it, see kappa_histogram in"
                " metrics.jsonl",
                100 * share,
                edge,
            )
