"""Passes over a set, and how they are compared."""

from collections.abc import Callable

import torch
from torch import Tensor

from cosify.data import Data, Shard

ALONE = Shard()
Batches = list[tuple[Tensor, Tensor]]


def epoch(data: Data, batch_size: int = 4, *, number: int = 0, seed: int = 0, first: int = 0) -> Batches:
    return list(data.train_batches(batch_size, epoch=number, seed=seed, shard=ALONE, first=first))


def rows_of(batches: Batches) -> list[int]:
    """Return the labels, which in these tests are the rows."""
    return torch.cat([labels for _, labels in batches]).tolist()


def assert_equal(found: Batches, expected: Batches) -> None:
    for (images, labels), (expected_images, expected_labels) in zip(found, expected, strict=True):
        assert torch.equal(labels, expected_labels)
        assert torch.equal(images, expected_images)


def assert_ranks_equal_one_process(data: Data, world_size: int) -> None:
    ranks = [list(data.train_batches(2, epoch=1, seed=2, shard=Shard(rank, world_size))) for rank in range(world_size)]
    together = [
        (torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts]))
        for parts in zip(*ranks, strict=True)
    ]
    assert_equal(together, epoch(data, 2 * world_size, number=1, seed=2))


def assert_resumed_equals_whole(made: Callable[[], Data]) -> None:
    """Begin an epoch of a new object at its first batch, its second, its last, and behind it."""
    whole = epoch(made(), number=3)
    assert len(whole) > 3
    for first in (0, 1, len(whole) - 1, len(whole)):
        assert_equal(epoch(made(), number=3, first=first), whole[first:])
