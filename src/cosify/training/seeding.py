"""Seeds of the global random generators."""

import random

import numpy as np
import torch


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed the global random generators, from which dropout, erasing and mixup draw, and those of a device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # the source that timm's Mixup draws from
    # Not torch.manual_seed: it stores a traceback for each kind of accelerator that is not in use, which costs a
    # millisecond a step.
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
