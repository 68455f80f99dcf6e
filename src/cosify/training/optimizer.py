"""Optimiser, learning-rate schedule and EMA of the weights, all timm's."""

from inspect import signature
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import Optimizer

from cosify.errors import InputError
from cosify.models.classifiers import find_classifiers, find_heads
from cosify.settings.training import RunArguments


def make_optimizer(args: RunArguments, model: nn.Module) -> Optimizer:
    """Return timm's optimiser of that name; vectors (biases, norms, a trainable kappa) get no weight decay.

    Raises:
        ValueError: if timm knows no such optimiser, or it does not take the settings, or needs second derivatives.
    """
    try:
        optimizer: Optimizer = create_optimizer_v2(
            model,
            opt=args.optimizer,
            lr=args.lr,
            weight_decay=args.weight_decay,
            momentum=args.momentum,
            **fused(args, next(model.parameters()).device),
        )
    except (AssertionError, TypeError, ValueError) as error:
        raise InputError(
            f"optimizer {args.optimizer!r} cannot be built ({error}), expected one of timm.optim.list_optimizers(),"
            " such as sgd or adamw"
        ) from error
    if getattr(optimizer, "is_second_order", False):
        raise InputError(
            f"optimizer {args.optimizer!r} needs second derivatives, expected one of first derivatives; use adamw, or a"
            " training script of yours"
        )
    _scale_head(optimizer, model, args.head_lr)
    return optimizer


def _scale_head(optimizer: Optimizer, model: nn.Module, factor: float) -> None:
    """Give the classifier groups of its own, whose rate timm's schedules multiply by a factor."""
    if factor == 1:
        return
    heads = find_heads(model) or find_classifiers(model)  # the latter does not know a class-parallel one
    own = {id(each) for head in heads.values() for each in head.parameters()}
    for group in list(optimizer.param_groups):
        head = [each for each in group["params"] if id(each) in own]
        if len(head) == len(group["params"]) > 0:
            group["lr_scale"] = factor
        elif head:
            group["params"] = [each for each in group["params"] if id(each) not in own]
            optimizer.add_param_group({**group, "params": head, "lr_scale": factor})


def fused(args: RunArguments, device: torch.device) -> dict[str, bool]:
    """Return the argument that fuses an optimiser's step into one kernel, on CUDA and if torch has one (SGD, AdamW).

    Not on a CPU, where fused steps round differently.  Not in fp16: where the scaler has the first step skipped, fused
    SGD keeps a momentum that was never written (torch 2.11 and 2.14).
    """
    name = args.optimizer.lower().removeprefix("lookahead_")
    if device.type != "cuda" or args.mixed_precision == "fp16" or name not in list_optimizers():
        return {}
    takes_it = "fused" in signature(get_optimizer_class(name, bind_defaults=False)).parameters
    return {"fused": True} if takes_it else {}


def make_schedule(args: RunArguments, optimizer: Optimizer, steps_per_epoch: int) -> Any:
    """Return timm's schedule: linear warm-up to the peak, then the schedule that `args.schedule` names.

    It has no state: the rate of the next step follows from the number of steps done.

    Args:
        args: epochs, warm-up and schedule.
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
        # Not 0, which would waste the first step.
        warmup_lr=args.lr / max(warmup_steps, 1),
        step_on_epochs=False,
        updates_per_epoch=steps_per_epoch,
    )
    return schedule


def make_ema(args: RunArguments, model: nn.Module) -> Any:
    """Return timm's EMA of the weights; None without `ema_decay`."""
    if args.ema_decay is None:
        return None
    # With warm-up, because a decay of 0.9999 would keep the initial weights for a whole short run.
    return ModelEmaV3(model, decay=args.ema_decay, use_warmup=True)
