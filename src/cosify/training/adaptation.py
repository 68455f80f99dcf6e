"""Cosify: give a softmax-pretrained network a cosine head and train it further (paper, Section 4.4 and Table 5)."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import torch
from torch import nn

from cosify.errors import AccuracyDroppedError, InputError
from cosify.folders import model_name
from cosify.functional import ls_kappa
from cosify.heads.kappa_statistics import KappaStatistics, KappaSummary
from cosify.models import convert, find_heads, in_evaluation, linear_classifier
from cosify.models.classifiers import is_timm, num_classes_of
from cosify.models.network_identity import check_label_names
from cosify.models.stage_freezing import freeze_stages
from cosify.settings.training import CosifyArguments, kappa_policy
from cosify.training.evaluation import EVAL_BATCH, Evaluation, evaluate
from cosify.training.fine_tuning import blocks_of
from cosify.training.head_start import begin_heads
from cosify.training.loop import fit
from cosify.training.opener import open_model
from cosify.training.progress import logger
from cosify.training.result import TrainResult
from cosify.training.resumed import as_begun
from cosify.training.session import Session

SCANNED = 2048  # training images whose kappa* under the start weights is reported


def cosify_pretrained(args: CosifyArguments) -> TrainResult:
    """Give a softmax-pretrained network a cosine head, and train it further.

    The classifier loses its bias and begins with its weight.  A network with another number of classes than the data
    gets a new one, trained alone first; it has no earlier accuracy, so `max_drop` does not apply.  Batch norms keep
    their statistics.  `args.head_start` and `args.freeze_norms` choose otherwise.  Before the first step, kappa* of the
    start weights is logged, whatever kappa the training uses.

    Args:
        args: the settings; with `resume`, those of the run that goes on.

    Raises:
        ValueError: for data, model or settings that do not work; the message says what to change.
        OSError: if the run folder is in use, or a file cannot be written.
        AccuracyDroppedError: if an evaluation is more than `max_drop` below the softmax model.
        Interrupted: after SIGINT or SIGTERM, and a checkpoint.
    """
    args = as_begun(args)
    model, preprocessing = open_model(args.model, args.image_size, smoke=args.smoke, seed=args.seed)
    if not is_timm(model):
        raise InputError(
            f"{args.model} is a model of transformers, expected one of timm; cosify.convert gives it a cosine head for"
            " a training of your own"
        )
    if find_heads(model):
        raise InputError(f"model {args.model!r} has a cosine head already, expected a softmax one; use cosify finetune")
    freeze_stages(model, blocks_of(args.blocks))  # more stages than there are must leave no folder
    session = Session.open(
        args, f"{model_name(args.model)}-{args.kappa}", preprocessing, partial(check_label_names, model)
    )
    device, num_classes = session.accelerator.device, len(session.data.label_names)
    kept, begin = session.kept, args.head_start
    base, start = kept.get("base_accuracy"), kept.get("start_kappa")
    is_new = num_classes_of(model) != num_classes
    if begin == "auto":  # class-parallel, nobody holds the whole weight
        begin = "probe" if is_new and not args.class_parallel else "none"
    if is_new:
        logger.info(
            "model of %d classes, data of %d: the model gets a new classifier", num_classes_of(model), num_classes
        )
        model.reset_classifier(num_classes)  # type: ignore[operator]  # every timm classifier has it
    elif not kept:
        batches = session.data.test_batches(EVAL_BATCH, session.shard)
        base = evaluate(model.to(device), batches, device=device, all_sum=session.all_sum).accuracy
        logger.info("softmax model: test accuracy %.2f %%", 100 * base)
    convert(model, kappa=kappa_policy(args.kappa))
    freeze_stages(model, blocks_of(args.blocks))
    model.to(device)
    if not kept:
        begin_heads(session, model, begin)
        start = asdict(scan_kappa(session, model))
        logger.info("kappa* of the start weights: %.2f (median %.2f)", start["mean"], start["median"])
    # A smoke test starts from random weights, whose accuracy says nothing.
    guard = None if base is None or args.smoke else _guard(base, args.max_drop)
    more = {
        "start": args.model,
        "head": args.kappa,
        "blocks": args.blocks,
        "base_accuracy": base,
        "begun": kept.get("begun", begin),
        "start_kappa": start,
    }
    return fit(session, model, more_config=more, guard=guard)


@torch.no_grad()
def scan_kappa(session: Session, model: nn.Module, limit: int = SCANNED) -> KappaSummary:
    """Return LS-kappa*, Eq. (11), of training images under a network's weights, without augmentation.

    They are drawn at random, but always the same, on any number of processes.

    Args:
        session: the opened run; every rank must call this together.
        model: network with a classifier, on the training device; its mode is restored.
        limit: most images.
    """
    batch_size = min(EVAL_BATCH, session.args.batch_size)
    batches = session.data.plain_train_batches(batch_size, session.shard, limit)
    kappas = KappaStatistics(session.accelerator.device)
    classifier = linear_classifier(model)
    with in_evaluation(model, classifier) as answers:
        for images, _ in batches:
            embedding, _ = answers(images)
            kappas.update(ls_kappa(embedding, classifier.weight.flatten(1).float()))
    summary = kappas.summary(session.all_sum, session.shard.world_size)
    assert summary is not None
    return summary


def _guard(base: float, max_drop: float) -> Callable[[Evaluation], None]:
    def check(evaluation: Evaluation) -> None:
        drop = base - evaluation.accuracy
        if drop > max_drop:
            raise AccuracyDroppedError(
                f"test accuracy is {evaluation.accuracy:.2%}, {drop:.2%} below the softmax model's {base:.2%},"
                f" expected at most {max_drop:.2%}; lower --lr, train longer with --max-drop 1, free more --blocks, or"
                " choose another --kappa"
            )

    return check
