"""The softmax of Eq. (2), its average prototype and the energy of Eq. (10), at several kappas in one pass."""

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn.functional import logsigmoid

from cosify.functional.checks import values_hidden
from cosify.functional.float64 import float64_device, sum_dtype
from cosify.functional.fusion import fused
from cosify.functional.rows import Rows, common_dtype
from cosify.functional.search.blocks import STORE_BYTES, Block, ClassBlocks, default_chunk, kappas_in_trace, some
from cosify.functional.search.shards import Shards
from cosify.functional.search.target import Labelled, Target
from cosify.functional.similarity import powers

FLOOR = -2.0  # below any cosine: the maximum over no class at all
# Classes that one product adds up: a GPU may do so one by one, with an error in float32 that grows with their number.
LONGEST_SUM = 1 << 13


@dataclass(frozen=True)
class SoftmaxState:
    """The softmax at n kappas for each of B samples; "the rest" is all classes but a target that is kept apart.

    Attributes:
        kappa: [n, B].
        nearest: [n, B], the largest cosine of the rest.
        mass: [n, B], sum of exp(kappa (z_c - nearest)) over the rest.
        rest_mean: [n, B, d], the average prototype of the rest.
        log_odds: [n, B], log of the target's mass over the rest's; -inf without a target.
        energy: [n, B], Eq. (10).
    """

    kappa: Tensor
    nearest: Tensor
    mass: Tensor
    rest_mean: Tensor
    log_odds: Tensor
    energy: Tensor

    def pick(self, position: Tensor) -> "SoftmaxState":
        """Return the state, n = 1, at one of the kappas of each sample, [B]."""
        num_rows = len(position)
        flat = position * num_rows + torch.arange(num_rows, device=position.device)
        states = (getattr(self, field.name).flatten(0, 1) for field in fields(self))
        return SoftmaxState(*(values.index_select(0, flat).unsqueeze(0) for values in states))

    def put(self, rows: Tensor, other: "SoftmaxState", chosen: Tensor | None = None) -> None:
        """Overwrite samples `rows` [r] by those of `other`; given the mask `chosen` [r], where it says so."""
        for field in fields(self):
            old, new = getattr(self, field.name), getattr(other, field.name)
            if chosen is not None:
                new = torch.where(chosen.unsqueeze(-1) if old.ndim == 3 else chosen, new, old[:, rows])
            old[:, rows] = new


@dataclass(frozen=True)
class Scan:
    """Samples and the classes that they are compared with; no gradient flows here.

    Attributes:
        samples: the embeddings.
        blocks: of this process' classes.
        target: the labelled classes, if labels are known.
        shards: the processes that share the classes.
    """

    samples: Rows
    blocks: ClassBlocks
    target: Target
    shards: Shards

    @classmethod
    def of(
        cls, embedding: Tensor, weight: Tensor, chunk: int | None = None, group: ProcessGroup | None = None
    ) -> "Scan":
        """Prepare [B, d] against [C, d]; `chunk` from the memory that a block may take, unless given.

        Raises:
            ValueError: if numbers on the CPU are not finite.
        """
        dtype = common_dtype(embedding, weight)
        samples = Rows.of(embedding, dtype, "embedding")
        return cls.of_rows(samples, Rows.of(weight, dtype, "weight"), chunk, group)

    @classmethod
    def of_rows(
        cls, samples: Rows, classes: Rows, chunk: int | None = None, group: ProcessGroup | None = None
    ) -> "Scan":
        """Prepare the same from rows whose norms are known."""
        embedding, num_classes = samples.whole(), len(classes.given)
        if chunk is None:
            chunk = default_chunk(embedding.shape[0], embedding.shape[1], num_classes, embedding.device)
        return cls(samples, ClassBlocks(embedding, classes, chunk), Target(), Shards(group))

    def without(self, index: Tensor, has_label: Tensor) -> "Scan":
        """Return the same with the labelled classes kept apart.

        Args:
            index: [B], number of the label among this process' classes; -1 for none, or where another one holds it.
            has_label: [B], whether any process holds it.
        """
        prototype = self.shards.sum(_prototypes_of(index, self.blocks.classes))
        target = Labelled(_cosines_of(self.blocks.embedding, prototype, has_label), prototype)
        return replace(self, blocks=replace(self.blocks, apart=index, kept=None), target=target)

    def prototype_sum(self) -> Tensor:
        """Return the sum of all prototypes, [d], float64 if the device has it."""
        blocks, dtype = self.blocks, sum_dtype(self.blocks.embedding.device)
        starts = range(0, blocks.num_classes, blocks.chunk)
        parts = [blocks.classes.block(start, start + blocks.chunk).to(dtype).sum(dim=0) for start in starts]
        return self.shards.sum(torch.stack(parts).sum(dim=0))

    def stored(self) -> "Scan":
        """Return the same with the cosines kept, if they fit into the memory set aside for them."""
        embedding = self.blocks.embedding
        limit = STORE_BYTES.get(embedding.device.type, STORE_BYTES["cuda"])
        fits = len(embedding) * self.blocks.num_classes * embedding.element_size() <= limit
        if not fits:
            return self
        return replace(self, blocks=replace(self.blocks, kept=[block.cosine for block in self.blocks]))

    def keeping(self, cosine: Tensor) -> "Scan":
        """Return the same with cosines [B, C] that someone has computed."""
        return replace(self, blocks=replace(self.blocks, kept=cosine.split(self.blocks.chunk, dim=1)))

    def in_float64(self, rows: Tensor | slice) -> "Scan":
        """Return some samples in float64, normalised from the original numbers, without labels."""
        place = float64_device(self.blocks.embedding.device)
        given = (self.samples.given[rows], self.blocks.classes.given)
        samples, classes = (Rows.of(each.to(place), torch.float64) for each in given)
        return Scan.of_rows(samples, classes, self.blocks.chunk, self.shards.group)

    def evaluate(
        self, kappa: Tensor, rows: Tensor | None = None, beyond: Tensor | None = None
    ) -> tuple[SoftmaxState, Tensor | None]:
        """Return the softmax at `kappa` [n, B] or [n, 1], of all samples or of `rows`, in one pass over the blocks.

        Args:
            kappa: where the average is wanted, a matrix product for each.
            rows: numbers of samples.
            beyond: [B], one more kappa for each sample, at which only 1 - p of the nearest class is computed.

        Returns:
            The state, and 1 - p of the nearest class at `beyond`, [B], None without it.
        """
        embedding, target = some(rows, self.blocks.embedding), self.target.of(rows)
        kappa = kappa.to(embedding.dtype).expand(kappa.shape[0], len(embedding))
        num_sums = len(kappa)
        every = kappa if beyond is None else torch.cat([kappa, beyond.to(kappa.dtype).unsqueeze(0)])
        blocks = self.blocks.of(rows)
        sums = _first_sums(every, num_sums, next(blocks))
        for block in blocks:
            sums = _more_sums(sums, every, num_sums, block)
        if self.shards.group is not None:
            nearest, mass, total = sums
            overall = self.shards.max(nearest)
            shrink = (every * (nearest - overall)).exp_()
            total = total * shrink[:num_sums].reshape(-1, 1)
            sums = _Sums(overall, self.shards.sum(mass * shrink), self.shards.sum(total))
        return _state(embedding, target, every, num_sums, sums)

    def mean(self, state: SoftmaxState, position: int, rows: Tensor | None = None) -> Tensor:
        """Return m of Eq. (12), the average of all prototypes, [B, d], at one kappa of a state of `rows`."""
        return self.target.of(rows).mean(state.rest_mean[position], state.log_odds[position])

    def inner(self, state: SoftmaxState, position: int, rows: Tensor | None = None) -> Tensor:
        """Return x . m, the average cosine, [B]; it grows with kappa."""
        inner = (some(rows, self.blocks.embedding) * state.rest_mean[position]).sum(dim=1)
        return self.target.of(rows).inner(inner, state.log_odds[position])

    def log_masses(self, kappa: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest cosine [B] and log sum exp(kappa (z - largest)) over all classes, [n, B] for [n, 1]."""
        nearest = self.blocks.embedding.new_full((self.blocks.embedding.shape[0],), FLOOR)
        for block in self.blocks:
            nearest = torch.maximum(nearest, block.cosine.amax(dim=1))
        nearest = self.target.nearest(self.shards.max(nearest))
        kappa = kappa.to(nearest.dtype)
        groups = kappa.unsqueeze(-1).split(
            kappas_in_trace(len(kappa), self.blocks.num_classes) if values_hidden() else 1
        )
        mass = nearest.new_zeros(())
        for block in self.blocks:
            gap = block.cosine - nearest.unsqueeze(1)
            sums = torch.cat([powers(group, gap).sum(dim=-1) for group in groups])
            mass = sums if block.start == 0 else mass + sums
        return nearest, (self.shards.sum(mass) + self.target.mass(kappa, nearest)).log()


@fused
def _prototypes_of(index: Tensor, classes: Rows) -> Tensor:
    """Return the prototypes of classes `index` [B], [B, d]; zeros for -1."""
    rows = index.clamp_min(0)
    return Rows(classes.given[rows], classes.inverse[rows] * (index >= 0)).whole()


@fused
def _cosines_of(embedding: Tensor, prototype: Tensor, has_label: Tensor) -> Tensor:
    """Return the cosine of each sample and its prototype, [B]; -inf without a label."""
    return (embedding * prototype).sum(dim=1).masked_fill(~has_label, -torch.inf)


class _Sums(NamedTuple):
    """Sums over the classes so far, for r samples at n kappas, and more kappas at which the mass alone is wanted."""

    nearest: Tensor  # [r], the largest cosine
    mass: Tensor  # [.., r], of exp(kappa (z - nearest))
    total: Tensor  # [n r, d], of the same times the prototypes


def _of_block(every: Tensor, num_sums: int, block: Block, nearest: Tensor) -> tuple[Tensor, Tensor]:
    """Return the masses of some classes, relative to `nearest`, and the shares of their rows in the totals."""
    power = powers(every.unsqueeze(-1), block.cosine - nearest.unsqueeze(1))
    mass, share = power.sum(dim=-1), power[:num_sums].reshape(-1, power.shape[-1])
    return mass, share if block.factor is None else share.mul_(block.factor)


def _added(total: Tensor | None, share: Tensor, rows: Tensor) -> Tensor:
    """Return share @ rows, [m, c] by [c, d], added to a total if there is one."""
    for part, some_rows in zip(share.split(LONGEST_SUM, dim=1), rows.split(LONGEST_SUM), strict=True):
        total = part @ some_rows if total is None else total.addmm_(part, some_rows)
    assert total is not None
    return total


@fused
def _first_sums(every: Tensor, num_sums: int, block: Block) -> _Sums:
    """Return the sums over the first classes."""
    nearest = block.cosine.amax(dim=1).clamp_min_(FLOOR)
    mass, share = _of_block(every, num_sums, block, nearest)
    return _Sums(nearest, mass, _added(None, share, block.rows))


@fused
def _more_sums(sums: _Sums, every: Tensor, num_sums: int, block: Block) -> _Sums:
    """Return the sums with some more classes; the largest cosine is known only at the end."""
    nearest = torch.maximum(sums.nearest, block.cosine.amax(dim=1))
    mass, share = _of_block(every, num_sums, block, nearest)
    shrink = (every * (sums.nearest - nearest)).exp_()
    total = _added(sums.total.mul_(shrink[:num_sums].reshape(-1, 1)), share, block.rows)
    return _Sums(nearest, torch.addcmul(mass, sums.mass, shrink), total)


@fused
def _state(
    embedding: Tensor, target: Target, every: Tensor, num_sums: int, sums: _Sums
) -> tuple[SoftmaxState, Tensor | None]:
    """Return what `Scan.evaluate` returns, from the sums over all classes."""
    nearest, kappa = sums.nearest, every[:num_sums]
    mass = sums.mass.clamp_min(torch.finfo(sums.mass.dtype).tiny)  # zero where the target is the only class
    log_odds = target.log_odds(every, nearest, mass)
    one = others(target, every[-1], nearest, mass[-1], log_odds[-1]) if len(every) > num_sums else None
    mass, log_odds = mass[:num_sums], log_odds[:num_sums]
    rest_mean = sums.total.reshape(num_sums, *embedding.shape).div_(mass.unsqueeze(-1))
    # Of the difference: the expanded form 1 - 2 s + |m|^2 cancels where the two nearly agree.
    residual = embedding - target.mean(rest_mean, log_odds)
    energy = 0.5 * torch.linalg.vector_norm(residual, dim=-1).square()
    return SoftmaxState(kappa, nearest.expand_as(kappa), mass, rest_mean, log_odds, energy), one


def others(target: Target, kappa: Tensor, nearest: Tensor, mass: Tensor, log_odds: Tensor) -> Tensor:
    """Return 1 - p of the nearest class, the target included; it falls with kappa."""
    log_nearest = kappa * (target.nearest(nearest) - nearest)
    return -torch.expm1(log_nearest - mass.log() + logsigmoid(-log_odds))
