"""Which rows form a batch, on which rank: shuffled by a seed for training, each exactly once for evaluation."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cosify.errors import InputError


@dataclass(frozen=True)
class Shard:
    """This process' place among `world_size` processes."""

    rank: int = 0
    world_size: int = 1


ALONE = Shard()


def num_train_batches(num_samples: int, batch_size: int, world_size: int = 1) -> int:
    """Return the steps of an epoch; samples that do not fill a batch on every rank wait for another epoch's shuffle.

    Args:
        num_samples: N, of the training set.
        batch_size: B, samples of one rank.
        world_size: number of ranks.

    Raises:
        ValueError: if not even one batch is filled.
    """
    global_batch = batch_size * world_size
    if num_samples < global_batch:
        raise InputError(
            f"{num_samples} training samples do not fill one batch of {global_batch} ({batch_size} on each of"
            f" {world_size} processes), expected at least {global_batch}; use --batch-size"
            f" {max(1, num_samples // world_size)} or less"
        )
    return num_samples // global_batch


def training_order(labels: Tensor, *, epoch: int, seed: int, balance: float = 0.0) -> Tensor:
    """Return the rows of one epoch in the order they are seen, int64 [N].

    It depends on `seed` and `epoch` alone: two ranks with batches of B together see the batches of one with 2 B.

    Args:
        labels: [N], on the CPU.
        epoch: from 0 on; each has its own order.
        seed: of the run, the same on every rank.
        balance: above 0, draw with replacement, a class of n images in proportion to n ** (1 - balance): 1 draws every
            class as often as any other, 0.5 by the square root of its size (Kang et al., ICLR 2020, Eq. 1).
    """
    generator = torch.Generator().manual_seed(mixed_seed(seed, epoch))
    if balance == 0:
        return torch.randperm(len(labels), generator=generator)
    weights = labels.bincount().clamp_min(1).double() ** -balance
    return torch.multinomial(weights[labels], len(labels), replacement=True, generator=generator)


def own_rows(order: Tensor, batch: int, batch_size: int, shard: Shard = ALONE) -> Tensor:
    """Return this rank's rows of a batch.

    Args:
        order: of the epoch.
        batch: index of the batch in the epoch.
        batch_size: B, samples of one rank.
        shard: which part is this rank's.
    """
    start = (batch * shard.world_size + shard.rank) * batch_size
    return order[start : start + batch_size]


def eval_rows(num_samples: int, batch_size: int, shard: Shard = ALONE) -> Iterator[range]:
    """Yield this rank's rows in order; the last batch may be smaller, and over all ranks each sample comes once.

    Args:
        num_samples: N, of the set.
        batch_size: largest number of samples in a batch.
        shard: which part is this rank's.
    """
    start, stop = (num_samples * part // shard.world_size for part in (shard.rank, shard.rank + 1))
    for low in range(start, stop, batch_size):
        yield range(low, min(low + batch_size, stop))


def some_rows(num_samples: int, limit: int | None) -> Sequence[int]:
    """Return rows to look at, ascending: all, or `limit` of them drawn at random, but always the same.

    Args:
        num_samples: N, of the set.
        limit: most rows; None for all.
    """
    if limit is None or limit >= num_samples:
        return range(num_samples)
    drawn = torch.randperm(num_samples, generator=torch.Generator().manual_seed(0))[:limit]
    return sorted(drawn.tolist())


def mixed_seed(*parts: int) -> int:
    """Return a seed, below 2**63, made of all parts; seeds of neighbours have nothing in common.

    Args:
        *parts: whole numbers from 0 on, such as seed, epoch and batch.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
