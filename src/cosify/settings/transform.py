"""What settings say of images: pipeline, augmentation, and arguments of timm's transform."""

import inspect
from collections.abc import Mapping
from typing import Any, Literal

from cosify.errors import InputError

Pipeline = Literal["auto", "device", "workers"]
Augment = Literal["auto", "timm", "crop-flip", "crop", "none"]
OURS = ("input_size", "is_training", "mean", "std", "use_prefetcher", "normalize", "separate")
# Of evaluation alone, or, with the prefetcher, left to timm's own loader: random_erasing of the recipe erases.
WITHOUT_EFFECT = ("crop_pct", "crop_mode", "crop_border_pixels", "re_prob", "re_mode", "re_count", "re_num_splits")


def check_transform(options: Mapping[str, Any]) -> None:
    """Raise a ValueError if timm's transform does not take these options, or they are not for a recipe to set."""
    from timm.data import create_transform

    known = [name for name in inspect.signature(create_transform).parameters if name not in (*OURS, *WITHOUT_EFFECT)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(f"transform has {unknown}, expected arguments of timm.data.create_transform: {known}")
