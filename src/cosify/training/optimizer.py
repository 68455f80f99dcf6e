"""Optimiser and learning-rate schedule, both timm's."""

from typing import Any

from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import Optimizer

from cosify.training.arguments import TrainArguments


def make_optimizer(args: TrainArguments, model: nn.Module) -> Optimizer:
    """Return timm's optimiser of that name; vectors (biases, norms, a trainable kappa) get no weight decay.

    Raises:
        ValueError: if timm knows no such optimiser, or it does not take the settings.
    """
    try:
        optimizer: Optimizer = create_optimizer_v2(
            model, opt=args.optimizer, lr=args.lr, weight_decay=args.weight_decay, momentum=args.momentum
        )
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(
            f"optimizer {args.optimizer!r} cannot be built ({error}), expected one of timm.optim.list_optimizers(),"
            " such as sgd or adamw"
        ) from error
    return optimizer


def make_schedule(args: TrainArguments, optimizer: Optimizer, steps_per_epoch: int) -> Any:
    """Return timm's cosine schedule over all steps: linear warm-up to the peak, then down to 0.

    Args:
        args: epochs and warm-up.
        optimizer: whose learning rate it sets, by `step_update(number of steps done)`.
        steps_per_epoch: optimiser steps in an epoch.
    """
    warmup_steps = round(args.warmup_epochs * steps_per_epoch)
    return CosineLRScheduler(
        optimizer,
        t_initial=args.epochs * steps_per_epoch,
        warmup_t=warmup_steps,
        # Not 0: the first step would be lost.
        warmup_lr_init=args.lr / max(warmup_steps, 1),
        t_in_epochs=False,
    )
