"""The training loop: Accelerate runs it on one process or many; timm gives model, optimiser and schedule.

All random choices of a step follow from the seed and the number of the step, so that a resumed run needs no state of a
random generator.  Order and augmentation of the images do not depend on the number of processes.  Mixup, erasing,
dropout and batch norm do: they act within the batch of one process.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from cosify.data import mixed_seed
from cosify.errors import Interrupted
from cosify.functional.checks import values_unseen
from cosify.functional.float64 import sum_dtype
from cosify.heads.kappa_statistics import KappaStatistics, KappaSummary
from cosify.training.announcement import announce, warn_of_bad_start, warn_of_chance
from cosify.training.checkpoint import Checkpoints, Progress
from cosify.training.class_parallel import collect_classes
from cosify.training.environment import describe_environment
from cosify.training.evaluation import Evaluation
from cosify.training.finite import FiniteNumbers
from cosify.training.interrupt import Interrupts
from cosify.training.prepare import Prepared
from cosify.training.progress import Bar, bar, epoch_record, evaluation_record, log_epoch, logger
from cosify.training.result import TrainResult
from cosify.training.run_folder import read_metrics
from cosify.training.seeding import seed_everything
from cosify.training.selection import Selection
from cosify.training.session import Session, on_terminal
from cosify.training.sharding import take_buffers_of_main
from cosify.training.trackers import Trackers

Guard = Callable[[Evaluation], None]
SAMPLING = {"sampling": 1.0, "sqrt-sampling": 0.5}  # powers that `training_order` takes; others draw every image once


def fit(
    session: Session, model: nn.Module, *, more_config: Mapping[str, Any] | None = None, guard: Guard | None = None
) -> TrainResult:
    """Train `model` and write the run folder, except for `export/`.

    Args:
        session: the opened run; a resumed one continues from its newest checkpoint.
        model: network with its head; what is frozen does not train.
        more_config: further entries of config.json.
        guard: called with each evaluation; what it raises ends the run.

    Raises:
        ValueError: for settings that do not work, or a loss or weights that are not finite, which are never saved; the
            message says what to change.
        OSError: if a file cannot be written; the last checkpoint is kept.
        Interrupted: after SIGINT or SIGTERM, and a checkpoint.
    """
    return Run(session, model, more_config or {}, guard).fit()


class Run:
    """A run: its parts, its progress, and its steps."""

    def __init__(self, session: Session, model: nn.Module, more_config: Mapping[str, Any], guard: Guard | None) -> None:
        self.session, self.guard = session, guard
        self.args, self.accelerator, self.folder = session.args, session.accelerator, session.folder
        described = session.describe(model)  # before its classes are spread
        self.parts = Prepared(session, model)
        self.model, self.steps_per_epoch = self.parts.model, self.parts.steps_per_epoch
        session.write_config({**described, **more_config})
        if session.is_main:
            self.folder.write_environment(describe_environment(self.accelerator.device, session.shard.world_size))
        self.checkpoints = Checkpoints(self.accelerator, self.folder)
        self.progress = self.checkpoints.load()
        settings = {name: str(value) for name, value in asdict(self.args).items()}
        self.trackers = Trackers(self.accelerator, self.folder, settings, self.progress.step)
        if session.is_main:
            self.folder.drop_metrics_after(self.progress.step)
        if self.progress.step > 0:
            self.parts.schedule.step_update(self.progress.step)
            logger.info("resumed at step %d of %d", self.progress.step, self.parts.total_steps)
        self.finite = FiniteNumbers(session, self.model, self.checkpoints, self.progress, self.steps_per_epoch)
        self.selection = Selection(session, self.parts, self.checkpoints, self.finite)
        self.kappas = KappaStatistics(self.accelerator.device, has_edges=self.parts.searches_grid)
        if self.progress.kappa is not None:
            self.kappas.load_state(self.progress.kappa, counts=session.is_main)
        self.interrupted_by = 0
        if session.is_main:
            announce(session, self.parts, described)

    def fit(self) -> TrainResult:
        """Run the remaining epochs."""
        progress, evaluation = self.progress, None
        drawing = bar(on_terminal(self.accelerator), progress.step, self.parts.total_steps)
        noting = Interrupts(self.accelerator)
        # Heads do not check values here: `FiniteNumbers` does, so that all ranks end together.
        with drawing as drawn, noting as interrupts, values_unseen():
            # An early stop within an epoch still ends it, also after a resume in between.
            while progress.step < self.parts.total_steps and not (progress.done and self._at_epochs_end()):
                self._steps_of_epoch(drawn, interrupts)
                evaluation = self._end_epoch()
                self._save_checkpoint(progress)
                self._stop_if_interrupted()
        self.trackers.finish()
        return self._result(evaluation)

    def _steps_of_epoch(self, drawn: Bar, interrupts: Interrupts) -> None:
        """Run the remaining steps of the current epoch."""
        progress, args, device = self.progress, self.args, self.accelerator.device
        epoch, first = divmod(progress.step, self.steps_per_epoch)
        sums = torch.tensor(progress.sums, dtype=sum_dtype(device), device=device)
        self.parts.train_mode()
        batches = self.session.data.train_batches(
            args.batch_size,
            epoch=epoch,
            seed=args.seed,
            shard=self.session.shard,
            first=first * args.accumulate,
            balance=SAMPLING.get(args.balance, 0.0),
        )
        start = time.perf_counter() - progress.seconds
        for _ in range(first, self.steps_per_epoch):
            self.step(batches, epoch, sums, drawn)
            progress.seconds = time.perf_counter() - start
            self.finite.look(sums)
            self.interrupted_by = interrupts.agreed(progress.step)
            if self._at_epochs_end():
                break  # the epoch's end evaluates, saves and stops
            # Before the checkpoint, which holds what came of it.
            if self._due(args.eval_every_steps):
                before = time.perf_counter()
                self._evaluate_between(epoch, sums)
                start += time.perf_counter() - before
            if self.interrupted_by or self._due(args.save_every_steps):
                self._save(sums)
            self._stop_if_interrupted()
        progress.sums = self.finite.fetch(sums)
        progress.seconds = time.perf_counter() - start

    def step(self, batches: Iterator[tuple[Tensor, Tensor]], epoch: int, sums: Tensor, drawn: Bar) -> None:
        """Make one optimiser step.

        Args:
            batches: of this rank; `accumulate` of them are taken.
            epoch: from 0 on.
            sums: loss, correct answers and samples of this rank so far; the step adds its own.
            drawn: progress bar.
        """
        args, accelerator, parts, shard = self.args, self.accelerator, self.parts, self.session.shard
        parts.optimizer.zero_grad()
        num_images = 0
        for part in range(args.accumulate):
            before = time.perf_counter()
            images, labels = next(batches)
            self.progress.waited += time.perf_counter() - before
            seed_everything(mixed_seed(args.seed, self.progress.step, part, shard.rank), images.device)
            images, targets = parts.batch_augment(images, labels, epoch)
            images = images.contiguous(memory_format=parts.layout)
            last = part == args.accumulate - 1
            with nullcontext() if last else accelerator.no_sync(parts.objective):
                loss, correct = parts.objective(images, targets)
                parts.backward(loss if args.accumulate == 1 else loss / args.accumulate)
            sums[0] += loss.detach() * len(labels)
            sums[1] += correct
            sums[2] += len(labels)
            num_images += len(labels)
            for head in parts.heads:
                if head.last_kappa is not None:
                    self.kappas.update(head.last_kappa[head.own_rows])
        if args.clip_grad_norm is not None:
            parts.clip_gradients(args.clip_grad_norm)
        parts.optimizer.step()
        self.progress.step += 1
        parts.schedule.step_update(self.progress.step)
        if parts.ema is not None:
            parts.ema.update(self.model, step=self.progress.step)
        drawn.step(epoch, num_images * shard.world_size, sums, self.kappas, parts.counts_correct)

    def _end_epoch(self) -> Evaluation | None:
        """Evaluate if it is due, record the epoch, and apply the guard."""
        progress, args, parts = self.progress, self.args, self.parts
        epoch = progress.step // self.steps_per_epoch
        kappa = self.kappas.summary(self.session.all_sum, self.session.shard.world_size)
        group = parts.optimizer.param_groups[0]
        lr = group["lr"] / group.get("lr_scale", 1.0)  # not the head's, where it has one of its own
        record = epoch_record(progress, epoch, lr, kappa, parts.counts_correct)
        evaluation = None
        if epoch % args.eval_every_epochs == 0 or progress.step == parts.total_steps or progress.done:
            evaluation = self.selection.measure()
            record.update(evaluation_record(evaluation))
            self.selection.note(evaluation, progress)
        progress.sums, progress.kappa, progress.seconds, progress.waited = [0.0] * 3, None, 0.0, 0.0
        self.kappas = KappaStatistics(self.accelerator.device, has_edges=self.parts.searches_grid)
        self._record(record)
        if self.session.is_main:
            log_epoch(record, args.epochs, kappa, parts.start_kappa, self.session.data.pipeline)
            if epoch == 1 and kappa is not None and parts.heads[0].policy.estimates:
                warn_of_bad_start(args, record["train_loss"], kappa, len(self.session.data.label_names))
        if evaluation is not None and self.guard is not None:
            self.guard(evaluation)
        return evaluation

    def _evaluate_between(self, epoch: int, sums: Tensor) -> None:
        self.finite.fetch(sums)
        evaluation = self.selection.measure()
        self._record({"kind": "step", "epoch": epoch + 1, "step": self.progress.step, **evaluation_record(evaluation)})
        self.selection.note(evaluation, self.progress)
        if self.guard is not None:
            self.guard(evaluation)
        self.parts.train_mode()

    def _record(self, record: dict[str, Any]) -> None:
        self.checkpoints.on_main_process(lambda: self.folder.append_metrics(record), "metrics.jsonl")
        self.trackers.log(record)

    def _save(self, sums: Tensor) -> None:
        """Save in the middle of an epoch, with its sums so far."""
        kappa = self.kappas.state(self.session.all_sum, self.session.shard.world_size)
        self._save_checkpoint(replace(self.progress, sums=self.finite.fetch(sums), kappa=kappa))

    def _save_checkpoint(self, progress: Progress) -> None:
        if self.parts.whole is not None:  # under FSDP2 each rank writes some of the buffers
            take_buffers_of_main(self.model)
        with self.parts.all_classes():
            self.checkpoints.save(progress)

    def _stop_if_interrupted(self) -> None:
        if self.interrupted_by:
            raise Interrupted(
                f"stopped by signal {self.interrupted_by} at step {self.progress.step} of {self.parts.total_steps}; go"
                f" on with --resume {self.folder.path}",
                self.interrupted_by,
            )

    def _due(self, every: int | None) -> bool:
        return every is not None and self.progress.step % every == 0

    def _at_epochs_end(self) -> bool:
        return self.progress.step % self.steps_per_epoch == 0

    def _result(self, last: Evaluation | None) -> TrainResult:
        model, evaluation = self.selection.final(last)
        if self.session.is_main and not self.args.smoke:
            warn_of_chance(evaluation, len(self.session.data.label_names), self.args.data)
        unwrapped = self.accelerator.unwrap_model(self.parts.objective, keep_fp32_wrapper=False)
        vars(unwrapped).pop("forward", None)  # under bf16 accelerate 1.15 leaves the method behind as an attribute
        model.to(memory_format=torch.contiguous_format)  # the only format that safetensors stores
        collect_classes(model)
        self.accelerator.wait_for_everyone()
        records = read_metrics(self.folder.path)
        return TrainResult(
            folder=self.folder,
            model=model,
            evaluation=evaluation,
            kappa=KappaSummary.of_record(records[-1]),
            data=self.session.data,
            seconds=sum(record["seconds"] for record in records),
            is_main=self.session.is_main,
        )
