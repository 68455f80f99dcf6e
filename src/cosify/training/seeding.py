"""The global generators."""

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed the global generators, of which dropout, erasing, mixup and the like draw."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # the source that timm's Mixup draws from
    torch.manual_seed(seed)
