"""Optimiser, learning-rate schedule and averaged weights, all timm's."""

from typing import Any

from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import Optimizer

from cosify.errors import InputError
from cosify.training.arguments import RunArguments


def make_optimizer(args: RunArguments, model: nn.Module) -> Optimizer:
    """Return timm's optimiser of that name; vectors (biases, norms, a trainable kappa) get no weight decay.

    Raises:
        ValueError: if timm knows no such optimiser, or it does not take the settings.
    """
    try:
        optimizer: Optimizer = create_optimizer_v2(
            model, opt=args.optimizer, lr=args.lr, weight_decay=args.weight_decay, momentum=args.momentum
        )
    except (AssertionError, TypeError, ValueError) as error:
        raise InputError(
            f"optimizer {args.optimizer!r} cannot be built ({error}), expected one of timm.optim.list_optimizers(),"
            " such as sgd or adamw"
        ) from error
    return optimizer


def make_schedule(args: RunArguments, optimizer: Optimizer, steps_per_epoch: int) -> Any:
    """Return timm's schedule: linear warm-up to the peak, then the course that `args.schedule` names.

    It has no state: the rate of the next step follows from the number of steps done.

    Args:
        args: epochs, warm-up and course.
        optimizer: whose learning rate it sets, by `step_update(number of steps done)`.
        steps_per_epoch: optimiser steps in an epoch.
    """
    warmup_steps = round(args.warmup * steps_per_epoch)
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched=args.schedule,
        num_epochs=args.epochs,
        decay_epochs=args.decay_epochs,
        decay_milestones=args.decay_milestones,
        decay_rate=args.decay_rate,
        min_lr=args.min_lr,
        warmup_epochs=warmup_steps / steps_per_epoch,
        # Not 0: the first step would be lost.
        warmup_lr=args.lr / max(warmup_steps, 1),
        step_on_epochs=False,
        updates_per_epoch=steps_per_epoch,
    )
    return schedule


def make_average(args: RunArguments, model: nn.Module) -> Any:
    """Return timm's moving average of the weights, None if none is asked for."""
    if args.ema_decay is None:
        return None
    # With warm-up, because a decay of 0.9999 would keep the initial weights for a whole short run.
    return ModelEmaV3(model, decay=args.ema_decay, use_warmup=True)
