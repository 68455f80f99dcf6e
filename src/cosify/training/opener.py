"""Opening a classifier that has weights already, for training, evaluation and scans alike."""

from typing import Any, Literal, cast

import timm
import torch
from torch import nn

from cosify.data import Preprocessing
from cosify.errors import InputError
from cosify.hub import load
from cosify.models import find_classifiers
from cosify.training.model import SMALL_IMAGE_SIZE, SMALL_MODEL, SMALL_MODEL_KWARGS, set_image_size


def open_model(
    name: str,
    image_size: int | None = None,
    *,
    head: Literal["linear"] | None = None,
    smoke: bool = False,
    seed: int = 0,
) -> tuple[nn.Module, Preprocessing]:
    """Return a network, on the CPU, and what it expects of its images.

    Args:
        name: as `cosify.load` takes it.
        image_size: side of the images, pixels; None for its own.
        head: `"linear"` for the stock head, even of a published cosine model.
        smoke: if no name is given, return a small network with random weights.
        seed: of these random weights.

    Raises:
        ValueError: if none is named, it cannot be loaded, or takes no images of that size.
    """
    if name:
        model = load(name, head=head)
        if image_size is not None:
            set_image_size(model, image_size)
        if not find_classifiers(model):  # a backbone alone; with a classifier, all models are treated alike
            model.reset_classifier(1)  # type: ignore[operator]  # every timm classifier has it
    elif smoke:
        torch.manual_seed(seed)
        model = timm.create_model(SMALL_MODEL, in_chans=1, num_classes=10, **SMALL_MODEL_KWARGS)
        shape, config = (1, SMALL_IMAGE_SIZE, SMALL_IMAGE_SIZE), cast(Any, model.pretrained_cfg)
        config.update(input_size=shape, mean=(0.5,), std=(0.25,), crop_pct=1.0, interpolation="bilinear")
    else:
        raise InputError(
            "model is missing, expected a folder with an export, hf-hub:ORG/NAME or a timm model; name it with --model"
        )
    return model, Preprocessing.of_pretrained(model, image_size)
