"""The parts of a run, prepared by Accelerate: network and loss as one objective, optimiser, schedule and EMA."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from cosify.data import num_train_batches, record_preprocessing
from cosify.errors import InputError
from cosify.models import find_heads
from cosify.models.layout import training_layout
from cosify.models.stage_freezing import keep_frozen_in_eval
from cosify.training.batch_augment import BatchAugment
from cosify.training.class_parallel import (
    all_classes,
    class_parallel_heads,
    clip_gradients,
    keep_out_of_ddp,
    load_own_rows,
    spread_classes,
)
from cosify.training.model import checkpoint_gradients
from cosify.training.objective import Objective
from cosify.training.optimizer import make_ema, make_optimizer, make_schedule
from cosify.training.session import Session
from cosify.training.sharding import check_sharding


class Prepared:
    """The parts of a run.  They are registered with `session.accelerator`, which saves them in checkpoints.

    Attributes:
        model: network with its head, on the training device; under FSDP2 each rank has a part of every weight, with
            class_parallel its own classes.
        heads: its cosine heads.
        objective: maps images and targets to loss and correct answers; prepared by Accelerate.
        counts_correct: whether the objective counts correct answers.
        backward: function that runs the backward pass of a loss.
        optimizer: prepared by Accelerate.
        schedule: of the learning rate; `step_update(number of steps done)`.
        ema: EMA of the weights; None without `ema_decay`.
        whole: under FSDP2 an unsharded network, into which the weights are gathered; None elsewhere.
        batch_augment: erasing, mixup, cutmix.
        layout: memory format of images and network.
        steps_per_epoch: optimiser steps in an epoch.
        total_steps: of the run.

    Args:
        session: the opened run.
        model: network with its head; frozen parameters do not train.

    Raises:
        ValueError: for settings that do not work; the message says what to change.
    """

    def __init__(self, session: Session, model: nn.Module) -> None:
        self._session = session
        args, accelerator, data = session.args, session.accelerator, session.data
        device: torch.device = accelerator.device
        check_sharding(args, accelerator)
        per_step = args.batch_size * args.accumulate
        self.steps_per_epoch = num_train_batches(data.num_train, per_step, session.shard.world_size)
        self.total_steps = args.epochs * self.steps_per_epoch
        record_preprocessing(model, data.image_shape, data.normalization, data.scaling)
        if args.class_parallel:
            spread_classes(model)  # on the CPU: the device has room for a part of the classes alone
        self.layout = training_layout(model, device)
        model.to(device).to(memory_format=self.layout)
        if args.grad_checkpointing:
            checkpoint_gradients(model)
        if args.sync_batch_norm:
            model = convert_sync_batchnorm(model)  # timm's own keeps the activation of its layers
        self.model, self.heads = model, tuple(find_heads(model).values())
        objective = Objective(model, args, class_counts(session)).to(device)
        self.counts_correct = objective.counts_correct
        optimizer = make_optimizer(args, model)
        self.schedule = make_schedule(args, optimizer, self.steps_per_epoch)
        self.ema = make_ema(args, model)
        self.whole = copy.deepcopy(model) if accelerator.is_fsdp2 else None
        if args.compile:
            model.compile()
        self.batch_augment = BatchAugment(args, len(data.label_names), device)
        if self.whole is not None and args.mixed_precision == "bf16":
            autocast = torch.autocast(device.type, torch.bfloat16)
            objective.forward = autocast(objective.forward)  # type: ignore[method-assign]
        keep_out_of_ddp(objective)
        load_own_rows(optimizer, model)
        self.objective, self.optimizer = accelerator.prepare(objective, optimizer)
        if self.ema is not None:
            accelerator.register_for_checkpointing(self.ema)
        # Without scaling, accelerate's backward divides the loss by 1, which costs two more operations a step.
        scaled = accelerator.scaler is not None or accelerator.distributed_type == "DEEPSPEED"
        self.backward: Callable[[Tensor], None] = accelerator.backward if scaled else Tensor.backward

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and exported: the EMA or the gathered network, if there is one."""
        if self.ema is not None:
            return self.ema.module  # type: ignore[no-any-return]
        return self.model if self.whole is None else self.whole

    def all_classes(self) -> AbstractContextManager[None]:
        """Let the main process hold the rows of all classes within the block, for saving; all ranks enter together."""
        models = [self.model] if self.ema is None else [self.model, self.ema.module]
        return all_classes(*models, optimizer=self.optimizer)

    def clip_gradients(self, max_norm: float) -> None:
        """Clip the gradient of all parameters, over all ranks, to a norm."""
        if class_parallel_heads(self.model):
            clip_gradients(self.model, max_norm, self._session.all_sum)
        else:
            self._session.accelerator.clip_grad_norm_(self.model.parameters(), max_norm)

    @property
    def start_kappa(self) -> float | None:
        """Start value of a trainable kappa; None for other policies."""
        return self.heads[0].start_kappa if self.heads and self.heads[0].log_kappa is not None else None

    @property
    def searches_grid(self) -> bool:
        """Whether the heads pick kappa from the candidates of Eq. (14)."""
        return all(head.policy.searches_grid for head in self.heads)

    def train_mode(self) -> None:
        """Set training mode, except for frozen stages and, with `freeze_norms`, all batch norms."""
        self.objective.train()
        keep_frozen_in_eval(self.model, batch_norms=self._session.args.freeze_norms)


def class_counts(session: Session) -> Tensor | None:
    """Return how many training images each class has, [C], on the CPU; None for a stream.

    Raises:
        ValueError: if classes are to be balanced, and the data are a stream.
    """
    data, balance = session.data, session.args.balance
    if data.train_labels is not None:
        return data.train_labels.bincount(minlength=len(data.label_names))
    if balance != "none":
        raise InputError(
            f"balance is {balance!r} with a stream, which does not say how many images a class has, expected none; drop"
            " balance, or streaming"
        )
    return None
