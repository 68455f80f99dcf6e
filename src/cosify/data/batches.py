"""Which rows form a batch, on which rank: shuffled by a seed for training, each exactly once for evaluation."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cosify.data.tensors import ImageSet


@dataclass(frozen=True)
class Shard:
    """This process' place among `world_size` processes."""

    rank: int = 0
    world_size: int = 1


def num_train_batches(num_samples: int, batch_size: int, world_size: int = 1) -> int:
    """Return the steps of an epoch; what does not fill a batch on every rank is left for another epoch's shuffle.

    Args:
        num_samples: N, of the training set.
        batch_size: B, samples of one rank.
        world_size: number of ranks.

    Raises:
        ValueError: if not even one batch is filled.
    """
    global_batch = batch_size * world_size
    if num_samples < global_batch:
        raise ValueError(
            f"{num_samples} training samples do not fill one batch of {global_batch} ({batch_size} on each of"
            f" {world_size} processes), expected at least {global_batch}; use --batch-size"
            f" {max(1, num_samples // world_size)} or less"
        )
    return num_samples // global_batch


def train_batches(
    data: ImageSet, batch_size: int, *, epoch: int, seed: int, shard: Shard = Shard()
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield this rank's shuffled batches of one epoch.

    The order depends on `seed` and `epoch` alone: two ranks with batches of B together see the batches of one with 2 B.

    Args:
        data: the whole set, on every rank.
        batch_size: B, samples of one rank.
        epoch: from 0 on; each has its own order.
        seed: of the run, the same on every rank.
        shard: which part is this rank's.

    Yields:
        Images uint8 [B, channels, H, W] and labels [B].
    """
    num_batches = num_train_batches(len(data), batch_size, shard.world_size)
    generator = torch.Generator().manual_seed(epoch_seed(seed, epoch))
    order = torch.randperm(len(data), generator=generator).to(data.labels.device)
    for batch in range(num_batches):
        start = (batch * shard.world_size + shard.rank) * batch_size
        rows = order[start : start + batch_size]
        yield data.images[rows], data.labels[rows]


def eval_batches(data: ImageSet, batch_size: int, shard: Shard = Shard()) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield this rank's part in order; the last batch may be smaller, and over all ranks each sample comes once.

    Args:
        data: the whole set, on every rank.
        batch_size: largest number of samples in a batch.
        shard: which part is this rank's.

    Yields:
        Images uint8 [B, channels, H, W] and labels [B].
    """
    start, stop = (len(data) * part // shard.world_size for part in (shard.rank, shard.rank + 1))
    for low in range(start, stop, batch_size):
        rows = slice(low, min(low + batch_size, stop))
        yield data.images[rows], data.labels[rows]


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """Return a seed that differs between runs, epochs and ranks."""
    return ((seed * 1_000_003 + epoch) * 65_537 + rank) % 2**63
