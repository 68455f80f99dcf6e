"""The training loop: Accelerate runs it on one process or many, timm gives model, optimiser and schedule.

Every random choice of a step follows from the seed and the step's number, so that a resumed run needs no generator's
state.  Order and augmentation of the images do not depend on the number of processes; mixup, erasing, dropout and batch
norm, which act within the batch of one process, do.
"""

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from cosify.data import mixed_seed, num_train_batches, record_preprocessing
from cosify.errors import InputError
from cosify.functional.checks import values_unseen
from cosify.functional.float64 import sum_dtype
from cosify.heads.kappa_statistics import KappaStatistics, KappaSummary
from cosify.models import find_heads
from cosify.models.layout import training_layout
from cosify.models.stages import keep_frozen_in_eval
from cosify.training.batch_augment import BatchAugment
from cosify.training.ceiling import ceiling_images_per_second
from cosify.training.checkpoint import Checkpoints, Progress
from cosify.training.environment import describe_environment
from cosify.training.evaluate import Evaluation, evaluate
from cosify.training.finite import FiniteNumbers
from cosify.training.interrupt import Interrupted, Interrupts
from cosify.training.model import checkpoint_gradients
from cosify.training.objective import Objective
from cosify.training.optimizer import make_average, make_optimizer, make_schedule
from cosify.training.progress import Bar, bar, log_epoch, logger, warn_about_kappa, warn_about_speed
from cosify.training.result import TrainResult
from cosify.training.run_folder import read_metrics
from cosify.training.seeding import seed_everything
from cosify.training.session import Session, on_terminal
from cosify.training.sharding import check_sharding, gather_weights, take_buffers_of_main
from cosify.training.trackers import Trackers

EVAL_BATCH = 256


def fit(
    session: Session,
    model: nn.Module,
    *,
    more_config: Mapping[str, Any] | None = None,
    guard: Callable[[Evaluation], None] | None = None,
) -> TrainResult:
    """Train `model` and write the run folder, except for `export/`.

    Args:
        session: the opened run; one that resumes goes on where its newest checkpoint is.
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
    """A run's parts, and the steps between them."""

    def __init__(
        self,
        session: Session,
        model: nn.Module,
        more_config: Mapping[str, Any],
        guard: Callable[[Evaluation], None] | None,
    ) -> None:
        self.session = session
        self.guard = guard if guard is not None else lambda evaluation: None
        args, accelerator, data = session.args, session.accelerator, session.data
        self.args, self.accelerator, self.data, self.folder = args, accelerator, data, session.folder
        device = accelerator.device
        check_sharding(args, accelerator)
        per_step = args.batch_size * args.accumulate
        self.steps_per_epoch = num_train_batches(data.num_train, per_step, session.shard.world_size)
        self.total_steps = args.epochs * self.steps_per_epoch
        normalization = data.normalization
        record_preprocessing(
            model,
            data.image_shape,
            normalization.mean,
            normalization.std,
            data.interpolation,
            data.crop_pct,
            data.crop_mode,
        )
        self.layout = training_layout(model, device)
        model.to(device).to(memory_format=self.layout)
        if args.grad_checkpointing:
            checkpoint_gradients(model)
        if args.sync_batch_norm:
            model = convert_sync_batchnorm(model)  # timm's own keeps the activation of its layers
        self.model = model
        self.heads = list(find_heads(model).values())
        counts = None
        if data.train_labels is not None:
            counts = data.train_labels.bincount(minlength=len(data.label_names))
        elif args.balance != "none":
            raise InputError(
                f"balance is {args.balance!r} with a stream, which does not say how many images a class has, expected"
                " none; drop balance, or streaming"
            )
        objective = Objective(model, args, counts).to(device)
        self.counts_correct = objective.counts_correct
        optimizer = make_optimizer(args, model)
        self.schedule = make_schedule(args, optimizer, self.steps_per_epoch)
        self.average = make_average(args, model)
        # FSDP leaves each rank a part of every weight: what is evaluated and exported is a whole network beside it.
        self.whole = copy.deepcopy(model) if accelerator.is_fsdp2 else None
        if args.compile:
            model.compile()
        self.batch_augment = BatchAugment(args, len(data.label_names), device)
        session.write_config({**session.describe(model), **more_config})
        if session.is_main:
            self.folder.write_environment(describe_environment(device, session.shard.world_size))
        if self.whole is not None and args.mixed_precision == "bf16":
            autocast = torch.autocast(device.type, torch.bfloat16)
            objective.forward = autocast(objective.forward)  # type: ignore[method-assign]
        self.objective, self.optimizer = accelerator.prepare(objective, optimizer)
        self.checkpoints = Checkpoints(accelerator, self.folder)
        if self.average is not None:
            accelerator.register_for_checkpointing(self.average)
        self.trackers = Trackers(accelerator, self.folder, {k: str(v) for k, v in asdict(args).items()})
        self.progress = self.checkpoints.load()
        if session.is_main:
            self.folder.drop_metrics_after(self.progress.step)
        if self.progress.step > 0:
            self.schedule.step_update(self.progress.step)
            logger.info("resumed at step %d of %d", self.progress.step, self.total_steps)
        self.finite = FiniteNumbers(session, self.model, self.checkpoints, self.progress, self.steps_per_epoch)
        self.kappas = self._statistics()
        self.start_kappa = self.heads[0].start_kappa if self.heads and self.heads[0].log_kappa is not None else None
        self.ceiling: float | None = None
        self._first_batch: tuple[Tensor, ...] = ()
        self.interrupted_by = 0

    def fit(self) -> TrainResult:
        """Run what is left of the epochs."""
        progress = self.progress
        shown = on_terminal(self.accelerator)
        evaluation: Evaluation | None = None
        drawing, noting = bar(shown, progress.step, self.total_steps), Interrupts(self.accelerator)
        with drawing as drawn, noting as interrupts, values_unseen():  # for ranks to end together: `FiniteNumbers`
            while progress.step < self.total_steps and not progress.done:
                self._steps_of_epoch(drawn, interrupts)
                evaluation = self._end_epoch()
                self._save_checkpoint(progress)
                self._stop_if_interrupted()
        self.trackers.finish()
        return self._result(evaluation)

    def _steps_of_epoch(self, drawn: Bar, interrupts: Interrupts) -> None:
        """Run the steps from where the run is to the end of its epoch."""
        progress, args, accelerator = self.progress, self.args, self.accelerator
        epoch, first = divmod(progress.step, self.steps_per_epoch)
        sums = torch.tensor(progress.sums, dtype=sum_dtype(accelerator.device), device=accelerator.device)
        self._train_mode()
        batches = self.data.train_batches(
            args.batch_size,
            epoch=epoch,
            seed=args.seed,
            shard=self.session.shard,
            first=first * args.accumulate,
            balanced=args.balance == "sampling",
        )
        start = time.perf_counter() - progress.seconds
        for _ in range(first, self.steps_per_epoch):
            self.step(batches, epoch, sums, drawn)
            if self.ceiling is None:  # its time does not count
                before = time.perf_counter()
                self.ceiling = ceiling_images_per_second(accelerator, self.objective, *self._first_batch)
                self._first_batch = ()
                start += time.perf_counter() - before
            progress.seconds = time.perf_counter() - start
            self.finite.look(sums)
            self.interrupted_by = interrupts.agreed(progress.step)
            if progress.step % self.steps_per_epoch == 0:
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
            batches: of this rank; as many are taken as make a step.
            epoch: from 0 on.
            sums: loss, correct and samples of this rank, added to.
            drawn: shows it.
        """
        args, accelerator = self.args, self.accelerator
        self.optimizer.zero_grad()
        num_images = 0
        for part in range(args.accumulate):
            before = time.perf_counter()
            images, labels = next(batches)
            self.progress.waited += time.perf_counter() - before
            seed_everything(mixed_seed(args.seed, self.progress.step, part, self.session.shard.rank))
            images, targets = self.batch_augment(images, labels, epoch)
            images = images.contiguous(memory_format=self.layout)
            last = part == args.accumulate - 1
            with nullcontext() if last else accelerator.no_sync(self.objective):
                loss, correct = self.objective(images, targets)
                accelerator.backward(loss / args.accumulate)
            sums[0] += loss.detach() * len(labels)
            sums[1] += correct
            sums[2] += len(labels)
            num_images += len(labels)
            for head in self.heads:
                if head.last_kappa is not None:
                    self.kappas.update(head.last_kappa)
        if args.clip_grad_norm is not None:
            accelerator.clip_grad_norm_(self.model.parameters(), args.clip_grad_norm)
        self.optimizer.step()
        self.progress.step += 1
        self.schedule.step_update(self.progress.step)
        if self.average is not None:
            self.average.update(self.model, step=self.progress.step)
        drawn.step(epoch, num_images * self.session.shard.world_size, sums, self.kappas, self.counts_correct)
        if self.ceiling is None:
            self._first_batch = images, targets

    def _end_epoch(self) -> Evaluation | None:
        """Record an epoch, evaluate if it is time, and decide whether to go on."""
        progress, args = self.progress, self.args
        epoch = progress.step // self.steps_per_epoch
        loss, correct, samples = progress.sums
        kappa = self.kappas.summary(self.session.all_sum, self.session.shard.world_size)
        record: dict[str, Any] = {
            "kind": "epoch",
            "epoch": epoch,
            "step": progress.step,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": loss / samples,
            "train_accuracy": correct / samples if self.counts_correct else None,
            "seconds": progress.seconds,
            "images_per_second": samples / progress.seconds,
            "ceiling_images_per_second": self.ceiling,
            "waiting_share": progress.waited / progress.seconds,
        }
        if kappa is not None:
            record.update({f"kappa_{name}": value for name, value in asdict(kappa).items()})
        evaluation = None
        if epoch % args.eval_every_epochs == 0 or progress.step == self.total_steps:
            evaluation = self.evaluate()
            record.update(_test_record(evaluation))
            self._note_best(evaluation)
        progress.sums, progress.kappa, progress.seconds, progress.waited = [0.0] * 3, None, 0.0, 0.0
        self.kappas = KappaStatistics(self.accelerator.device)
        self._record(record)
        if self.session.is_main:
            log_epoch(record, args.epochs)
            if kappa is not None:
                warn_about_kappa(kappa, self.start_kappa)
            warn_about_speed(record, self.data.pipeline)
        if evaluation is not None:
            self.guard(evaluation)
        return evaluation

    def _evaluate_between(self, epoch: int, sums: Tensor) -> None:
        self.finite.fetch(sums)
        evaluation = self.evaluate()
        self._record({"kind": "step", "epoch": epoch + 1, "step": self.progress.step, **_test_record(evaluation)})
        self._note_best(evaluation)
        self.guard(evaluation)
        self._train_mode()

    def _note_best(self, evaluation: Evaluation) -> None:
        """Keep the weights of the best evaluation, and end the run with its epoch where none came for long enough."""
        progress, patience = self.progress, self.args.early_stop_evaluations
        progress.since_best += 1
        if progress.best_accuracy is None or evaluation.accuracy > progress.best_accuracy:
            progress.best_accuracy, progress.since_best = evaluation.accuracy, 0
            self.checkpoints.on_every_rank(
                lambda: self.checkpoints.save_best(self.evaluated) if self.session.is_main else None,
                f"the best weights of step {progress.step}",
                self.checkpoints.newest(),
            )
        progress.done |= patience is not None and progress.since_best >= patience

    def _record(self, record: dict[str, Any]) -> None:
        self.checkpoints.on_every_rank(
            lambda: self.folder.append_metrics(record) if self.session.is_main else None,
            "metrics.jsonl",
            self.checkpoints.newest(),
        )
        self.trackers.log(record)

    def _save(self, sums: Tensor) -> None:
        """Save in the middle of an epoch, with what was counted so far."""
        progress, session = self.progress, self.session
        kappa = self.kappas.state(session.all_sum, session.shard.world_size)
        self._save_checkpoint(replace(progress, sums=self.finite.fetch(sums), kappa=kappa))

    def _save_checkpoint(self, progress: Progress) -> None:
        if self.whole is not None:  # each rank writes some of the buffers
            take_buffers_of_main(self.model)
        self.checkpoints.save(progress)

    def _stop_if_interrupted(self) -> None:
        if self.interrupted_by:
            raise Interrupted(
                f"stopped by signal {self.interrupted_by} at step {self.progress.step} of {self.total_steps}; go on"
                f" with --resume {self.folder.path}",
                self.interrupted_by,
            )

    def _due(self, every: int | None) -> bool:
        return every is not None and self.progress.step % every == 0

    def _statistics(self) -> KappaStatistics:
        kappas = KappaStatistics(self.accelerator.device)
        if self.progress.kappa is not None:
            kappas.load_state(self.progress.kappa)
        return kappas

    def _train_mode(self) -> None:
        self.objective.train()
        keep_frozen_in_eval(self.model)

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and exported: the averaged or gathered one, if there is one."""
        if self.average is not None:
            return self.average.module  # type: ignore[no-any-return]
        return self.model if self.whole is None else self.whole

    def evaluate(self) -> Evaluation:
        """Measure the network on the test split, each rank on its share."""
        if self.whole is not None:
            gather_weights(self.model, self.whole)
        return self._measure()

    def _measure(self) -> Evaluation:
        # Unwrapped: DDP's forward would synchronise buffers, and ranks may differ by a batch.
        if self.session.shard.world_size > 1:
            take_buffers_of_main(self.evaluated)
        batches = self.data.test_batches(max(self.args.batch_size, EVAL_BATCH), self.session.shard)
        return self.finite.evaluation(
            evaluate(self.evaluated, batches, device=self.accelerator.device, all_sum=self.session.all_sum)
        )

    def _result(self, evaluation: Evaluation | None) -> TrainResult:
        model = self.evaluated
        if self.args.export == "best":
            self.checkpoints.load_best(model)
            evaluation = self._measure()
        elif evaluation is None:  # of a run that was resumed after its end
            evaluation = self.evaluate()
        unwrapped = self.accelerator.unwrap_model(self.objective, keep_fp32_wrapper=False)
        vars(unwrapped).pop("forward", None)  # under bf16 accelerate 1.15 leaves the method behind as an attribute
        model.to(memory_format=torch.contiguous_format)  # the only one that safetensors stores
        self.accelerator.wait_for_everyone()
        records = read_metrics(self.folder.path)
        return TrainResult(
            folder=self.folder,
            model=model,
            evaluation=evaluation,
            kappa=KappaSummary.of_record(records[-1]),
            data=self.data,
            seconds=sum(record["seconds"] for record in records),
            is_main=self.session.is_main,
        )


def _test_record(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "test_loss": evaluation.loss,
        "test_accuracy": evaluation.accuracy,
        "mean_angle_deg": evaluation.mean_angle_deg,
    }
