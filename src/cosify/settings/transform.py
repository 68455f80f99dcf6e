"""Settings of images: pipeline, augmentation, and arguments of timm's transform."""

import inspect
from collections.abc import Mapping
from typing import Any, Literal

from cosify.errors import InputError

Pipeline = Literal["auto", "device", "workers"]
Augment = Literal["auto", "timm", "crop-flip", "crop", "flip", "none"]
OURS = ("input_size", "is_training", "mean", "std", "use_prefetcher", "normalize", "separate")
# Used in evaluation alone, or left to timm's own loader: erasing is the recipe's random_erasing.
WITHOUT_EFFECT = ("crop_pct", "crop_mode", "crop_border_pixels", "re_prob", "re_mode", "re_count", "re_num_splits")


def check_transform(options: Mapping[str, Any]) -> None:
    """Raise a ValueError for options that timm's transform does not take, or that a recipe cannot set."""
    from timm.data import create_transform

    known = [name for name in inspect.signature(create_transform).parameters if name not in (*OURS, *WITHOUT_EFFECT)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(f"transform has {unknown}, expected arguments of timm.data.create_transform: {known}")
