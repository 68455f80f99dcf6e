"""Fine-tuning: a published or local backbone, a new head, a new task."""

from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import nn

from cosify.data import Preprocessing
from cosify.errors import InputError
from cosify.hub import load
from cosify.models import convert
from cosify.models.network_identity import model_digest
from cosify.models.stage_freezing import freeze_stages
from cosify.training.arguments import CosifyArguments, FinetuneArguments, kappa_policy
from cosify.training.loop import fit
from cosify.training.model import SMALL_IMAGE_SIZE, SMALL_MODEL, SMALL_MODEL_KWARGS, set_image_size
from cosify.training.result import TrainResult
from cosify.training.session import Session, smoke_settings


def finetune(args: FinetuneArguments) -> TrainResult:
    """Train a pretrained backbone with a new head.

    The head is new even where the classes are as many as before; an ordinary softmax unless `args.head` is cos, as for
    every kappa of the paper's Table 4.

    Args:
        args: the settings.

    Raises:
        ValueError: for data, model or settings that do not work; the message says what to change.
        OSError: if the run folder is in use, or a file cannot be written.
        Interrupted: after SIGINT or SIGTERM, and a checkpoint.
    """
    args = smoke_settings(args)
    model = start_model(args, head="linear")
    head = args.kappa if args.head == "cos" else "softmax"
    session = Session.open(args, f"{Path(args.model).name}-{head}", Preprocessing.of_pretrained(model, args.image_size))
    digest = model_digest(model)
    model.reset_classifier(len(session.data.label_names))  # type: ignore[operator]  # every timm classifier has it
    if args.head == "cos":
        convert(model, kappa=kappa_policy(args.kappa))
    freeze_stages(model, blocks_of(args.blocks))
    return fit(
        session, model, more_config={"start": args.model, "start_digest": digest, "head": head, "blocks": args.blocks}
    )


def start_model(args: FinetuneArguments | CosifyArguments, head: Literal["linear"] | None = None) -> nn.Module:
    """Return the network to start from; a smoke test has a small one without pretrained weights.

    Args:
        args: names it.
        head: `"linear"` for the stock head, also of a published cosine model.

    Raises:
        ValueError: if none is named, it cannot be loaded, or takes no images of `args.image_size`.
    """
    if args.model:
        loaded = load(args.model, head=head)
        if args.image_size is not None:
            set_image_size(loaded, args.image_size)
        return loaded
    if not args.smoke:
        raise InputError(
            "model is missing, expected a folder with an export, hf-hub:ORG/NAME or a timm model; name it with --model"
        )
    torch.manual_seed(args.seed)
    shape = (1, SMALL_IMAGE_SIZE, SMALL_IMAGE_SIZE)
    model: nn.Module = timm.create_model(SMALL_MODEL, in_chans=1, num_classes=10, **SMALL_MODEL_KWARGS)
    config: Any = model.pretrained_cfg
    config.update(input_size=shape, mean=(0.5,), std=(0.25,), crop_pct=1.0, interpolation="bilinear")
    return model


def blocks_of(blocks: str) -> Any:
    """Return `blocks` as `freeze_stages` takes it."""
    return int(blocks) if blocks.isdigit() else blocks
