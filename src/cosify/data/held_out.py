"""Rows to test on, for a set that has one split alone."""

import math

import torch
from torch import Tensor

from cosify.errors import InputError

TEST_SHARE = 0.2


def held_out_mask(labels: Tensor, share: float, seed: int) -> Tensor:
    """Return a mask [N] of the rows to hold out: floor(share N), of each class its share, rounded up or down.

    At least one row of each class stays.  So a class of one row gives none, and the mask is that much smaller.

    Raises:
        ValueError: if nothing is left on one of the sides.
    """
    size = math.floor(share * len(labels))
    if not 0 < size < len(labels):
        raise InputError(
            f"hold_out is {share}, {size} of {len(labels)} samples, expected a share that leaves samples on both sides;"
            " take more images"
        )
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).to(labels.device)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    # Every 1 / share-th row of those sorted by class: where the running total of shares passes a whole number.
    total = (torch.arange(len(labels) + 1, dtype=torch.float64, device=labels.device) * share).floor()
    held = torch.zeros_like(labels, dtype=torch.bool)
    held[by_class] = total.diff() > 0
    ordered = labels[by_class]
    first = by_class[torch.cat([ordered.new_ones(1, dtype=torch.bool), ordered[1:] != ordered[:-1]])]  # of each class
    classes, rows = labels.unique(return_inverse=True)
    kept = torch.zeros_like(classes).index_add(0, rows, (~held).to(classes.dtype))
    held[first] &= kept[rows[first]] > 0
    if not held.any():
        raise InputError(
            f"none of {len(labels)} samples of {len(classes)} classes can be held out, expected two of some class;"
            " take more images"
        )
    return held
