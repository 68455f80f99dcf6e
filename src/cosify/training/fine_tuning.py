"""Fine-tuning: a published or local backbone, a new head, a new task."""

from typing import Any

from cosify.folders import model_name
from cosify.models import convert
from cosify.models.network_identity import model_digest
from cosify.models.stage_freezing import freeze_stages
from cosify.settings.training import FinetuneArguments, kappa_policy
from cosify.training.head_start import begin_heads
from cosify.training.loop import fit
from cosify.training.opener import open_model
from cosify.training.result import TrainResult
from cosify.training.resumed import as_begun
from cosify.training.session import Session


def finetune(args: FinetuneArguments) -> TrainResult:
    """Train a pretrained backbone with a new head.

    The head is always new, even if the number of classes stays.  By default it is an ordinary softmax head, as in the
    paper's Table 4; `args.head` chooses a cosine head.

    Args:
        args: the settings; with `resume`, those of the run that goes on.

    Raises:
        ValueError: for data, model or settings that do not work; the message says what to change.
        OSError: if the run folder is in use, or a file cannot be written.
        Interrupted: after SIGINT or SIGTERM, and a checkpoint.
    """
    args = as_begun(args)
    model, preprocessing = open_model(args.model, args.image_size, head="linear", smoke=args.smoke, seed=args.seed)
    freeze_stages(model, blocks_of(args.blocks))  # more stages than there are must leave no folder
    head = args.kappa if args.head == "cos" else "softmax"
    session = Session.open(args, f"{model_name(args.model)}-{head}", preprocessing)
    digest = session.kept.get("start_digest") or model_digest(model)
    num_classes = len(session.data.label_names)
    if args.head == "cos":
        convert(model, kappa_policy(args.kappa), num_classes)
    else:
        model.reset_classifier(num_classes)  # type: ignore[operator]  # every timm classifier has it
    freeze_stages(model, blocks_of(args.blocks))
    if args.head_start != "none" and not session.kept:
        begin_heads(session, model.to(session.accelerator.device), args.head_start)
    return fit(
        session, model, more_config={"start": args.model, "start_digest": digest, "head": head, "blocks": args.blocks}
    )


def blocks_of(blocks: str) -> Any:
    """Return `blocks` as `freeze_stages` takes it."""
    return int(blocks) if blocks.isdigit() else blocks
