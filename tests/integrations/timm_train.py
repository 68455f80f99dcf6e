"""A loop as timm's train.py has it: its own logging, meters, loss scaling by hand, EMA, and summary."""

import argparse
import json
import logging
import os
from collections import OrderedDict
from typing import Any

import timm
import torch
from timm import utils
from timm.optim import create_optimizer_v2
from torch import nn

_logger = logging.getLogger("train")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output")
    parser.add_argument("--model-kwargs", nargs="*", default={}, action=utils.ParseKwargs)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--start-epoch", type=int, default=0)
    parser.add_argument("--log-wandb", action="store_true")
    parser.add_argument("--torchcompile")
    args = parser.parse_args()
    utils.setup_default_logging()
    utils.random_seed(0, 0)
    model = timm.create_model("test_resnet", num_classes=5, **args.model_kwargs)
    optimizer = create_optimizer_v2(model, "sgd", lr=0.01)
    model_ema = utils.ModelEmaV3(model, decay=0.9)
    if args.torchcompile:
        model = torch.compile(model, backend=args.torchcompile)
    images, targets = torch.randn(3, 8, 3, 64, 64), torch.randint(5, (3, 8))
    best_metric = None
    for epoch in range(args.start_epoch, args.epochs):
        train_metrics = train_one_epoch(epoch, model, images, targets, optimizer, model_ema)
        eval_metrics = validate(model_ema.module, images, targets)
        lrs = [param_group["lr"] for param_group in optimizer.param_groups]
        utils.update_summary(
            epoch,
            train_metrics,
            eval_metrics,
            filename=os.path.join(args.output, "summary.csv"),
            lr=sum(lrs) / len(lrs),
            write_header=best_metric is None and args.start_epoch == 0,
            log_wandb=args.log_wandb,
        )
        best_metric = eval_metrics["top1"]


def train_one_epoch(epoch: int, model: nn.Module, images: Any, targets: Any, optimizer: Any, model_ema: Any) -> Any:
    losses_m, seen = utils.AverageMeter(), []
    model.train()
    for batch_idx, (input, target) in enumerate(zip(images, targets, strict=True)):
        loss = nn.functional.cross_entropy(model(input), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model_ema.update(model, step=batch_idx)
        losses_m.update(loss.item(), input.size(0))
        _logger.info(f"Train: {epoch} [{batch_idx}/3]  Loss: {losses_m.val:#.3g} ({losses_m.avg:#.3g})")
        seen.extend(kappa for head in heads_of(model) for kappa in head.last_kappa.tolist())
    _logger.info(f"seen {json.dumps(seen)}")
    return OrderedDict([("loss", losses_m.avg)])


def heads_of(model: nn.Module) -> list[Any]:
    """Return the cosine heads, in a program that does not know cosify."""
    return [module for module in model.modules() if type(module).__name__ == "CosineLinear"]


def validate(model: nn.Module, images: Any, targets: Any) -> Any:
    top1_m = utils.AverageMeter()
    model.eval()
    with torch.no_grad():
        for input, target in zip(images, targets, strict=True):
            (acc1,) = utils.accuracy(model(input), target)
            top1_m.update(acc1.item(), input.size(0))
    return OrderedDict([("top1", top1_m.avg)])


if __name__ == "__main__":
    main()
