"""What a run is about to do, logged as one block before its first step, and a warning if it learnt nothing."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.distributions import Binomial

from cosify.data import BUILT_IN, base_and_split
from cosify.functional.grid import least_kappa
from cosify.heads import CosineHead
from cosify.heads.kappa_statistics import KappaSummary
from cosify.settings.training import RunArguments, TrainArguments
from cosify.training.evaluation import Evaluation
from cosify.training.prepare import Prepared
from cosify.training.progress import logger
from cosify.training.session import Session

FEW_STEPS = 500  # with fewer, a network from scratch hardly learns
FEW_STEPS_MORE = 100  # with fewer, a trained network hardly learns another task
LUCK = 0.05  # probability of guessing as many images right, above which a result counts as guessed
BAD_START = 1.25  # times log C, of the loss of the first epoch
PRECISION = {"no": "float32", "bf16": "bfloat16 where it is safe", "fp16": "float16 where it is safe"}
PIPELINES = {"device": "decoded once, kept on the device", "workers": "decoded as the run needs them"}
TRAINED = "cosify finetune tf_efficientnet_lite0.cos_2ls_in1k_ft_tinyin200 {data} --head cos"


def announce(session: Session, parts: Prepared, described: Mapping[str, Any]) -> None:
    """Log data, images, network, device, steps and output; warn if the steps are too few.

    Args:
        session: the opened run.
        parts: network, optimiser and so on.
        described: what the settings became, from `session.describe`.
    """
    args, tested = session.args, described["num_test"]
    rows = {
        "data": f"{described['num_train']:,} training and {'streamed' if tested is None else f'{tested:,}'} test images"
        f" of {described['num_classes']:,} classes ({args.data})",
        "images": _images(session),
        "network": _network(described, parts.heads),
        "device": f"{session.accelerator.device}, {PRECISION[args.mixed_precision]}"
        + (f", {session.shard.world_size} processes" if session.shard.world_size > 1 else ""),
        "steps": f"{parts.total_steps:,}: {args.epochs:,} epochs of {parts.steps_per_epoch:,}, each of"
        f" {args.batch_size * args.accumulate * session.shard.world_size:,} images",
        "output": str(session.folder.place or session.folder.path),  # its final place, taken with the first checkpoint
    }
    logger.info("%s", "\n".join(f"{name:8} {text}" for name, text in rows.items()))
    if args.smoke or base_and_split(args.data)[0] in BUILT_IN:
        return
    if not isinstance(args, TrainArguments) or args.pretrained:
        if parts.total_steps < FEW_STEPS_MORE:
            logger.warning("%d steps are few; raise --epochs, or lower --batch-size", parts.total_steps)
    elif parts.total_steps < FEW_STEPS:
        logger.warning(
            "%d steps are few for a network with random weights, which learns little in fewer than about %d; raise"
            " --epochs, or start from a trained one: %s",
            parts.total_steps,
            FEW_STEPS,
            TRAINED.format(data=args.data),
        )


def warn_of_chance(evaluation: Evaluation, num_classes: int, data: str) -> None:
    """Warn if guessing has as many images right with a probability above `LUCK`, unless all of them are right."""
    chance, num_samples = 1 / num_classes, evaluation.num_samples
    as_many = torch.arange(round(evaluation.accuracy * num_samples), num_samples + 1, dtype=torch.float64)
    guesses = Binomial(num_samples, torch.tensor(chance, dtype=torch.float64))
    if evaluation.accuracy < 1 and guesses.log_prob(as_many).exp().sum() > LUCK:
        logger.warning(
            "the result is no better than guessing: %.1f %% of %d test images are right, guessing gives %.1f %%; look"
            " at the labels, lower --lr, train longer, or start from a trained network: %s",
            100 * evaluation.accuracy,
            evaluation.num_samples,
            100 * chance,
            TRAINED.format(data=data),
        )


def warn_of_bad_start(args: RunArguments, loss: float, kappa: KappaSummary, num_classes: int) -> None:
    """Warn if the first epoch of an estimated kappa is far worse than guessing.

    Small cosines give a large kappa*, a large kappa a useless gradient: with cosines of spread s the loss is about
    log C + (kappa s)^2 / 2, and kappa may climb for epochs (scripts/ls_start.py).

    Args:
        args: the settings; a margin adds at most kappa times itself to the loss.
        loss: mean of the epoch, nats.
        kappa: of the epoch.
        num_classes: C.
    """
    guessing = math.log(num_classes)
    without_margin = loss - kappa.mean * (args.cosine_margin + args.angular_margin)
    if args.label_smoothing == 0 and without_margin > BAD_START * guessing:
        logger.warning(
            "the first epoch begins badly: its loss, %.1f%s, is far above that of guessing, log C = %.1f, because"
            " kappa* is %.0f where features and class weights have little to do with each other; put a batch norm"
            " between network and head (iresnet18 has one, resnet18_cifar takes --model-kwargs neck=true), or train"
            " with a fixed kappa, such as --kappa %.0f",
            *(without_margin, " without its margin" if args.has_margin else "", guessing, kappa.mean),
            2 * least_kappa(num_classes),
        )


def _images(session: Session) -> str:
    data, survey = session.data, session.record.survey
    channels, height, width = data.image_shape
    shown = f"{channels} x {height} x {width} pixels"
    scaling = data.scaling
    crop = "" if scaling.crop_pct == 1 else f", the middle {100 * scaling.crop_pct:g} %"
    if survey is None:  # of a resumed run, or one whose pipeline was asked for: nobody has looked at the images
        shown += crop
    elif survey.alike and survey.side == (height, width) and not crop:
        shown += ", made grey" if survey.made_grey else ", as they are"
    else:
        origin = "{} x {}".format(*survey.side) if survey.alike else "several sizes"
        shown += f", scaled from {origin} ({scaling.interpolation}){crop}{', made grey' if survey.made_grey else ''}"
    return f"{shown}; augmentation {data.augmentation}; {PIPELINES[data.pipeline]}"


def _network(described: Mapping[str, Any], heads: tuple[CosineHead, ...]) -> str:
    trained, of = described["num_trained"], described["num_parameters"]
    share = "" if trained == of else f", {trained:,} of them train"
    spec = heads[0].kappa_spec if heads else None
    kappa = f"{spec:g}" if isinstance(spec, (int, float)) else spec
    head = f"cosine head, kappa {kappa}" if heads else "softmax head"
    return f"{described['model']}, {of:,} parameters{share}; {head}"
