"""Rows to test on, where a set has one split alone."""

import math

import torch
from torch import Tensor

from cosify.errors import InputError

TEST_SHARE = 0.2


def held_out_mask(labels: Tensor, share: float, seed: int) -> Tensor:
    """Return a mask [N] of floor(share N) rows, from each class its share, rounded up or down."""
    size = math.floor(share * len(labels))
    if not 0 < size < len(labels):
        raise InputError(
            f"hold_out is {share}, {size} of {len(labels)} samples, expected a share that leaves samples on both sides;"
            " pass a validation set"
        )
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).to(labels.device)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    # Every 1 / share-th row of those sorted by class: where the running total of shares passes a whole number.
    total = (torch.arange(len(labels) + 1, dtype=torch.float64, device=labels.device) * share).floor()
    held = torch.zeros_like(labels, dtype=torch.bool)
    held[by_class] = total.diff() > 0
    return held
