"""A walk over the classes in blocks: the softmax of Eq. (2) and its average without a second [B, C] or [C, d].

Everything is a sum over classes after a maximum over classes, so blocks, and ranks that share the classes, change
nothing but the order of summation.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup, ReduceOp, all_reduce, broadcast
from torch.nn.functional import logsigmoid

from cosify.functional.checks import values_hidden
from cosify.functional.float64 import float64_device, sum_dtype
from cosify.functional.similarity import inverse_norms, powers

# Bytes of one block of softmax coefficients.  On a CPU a block should stay in the cache; a GPU needs large ones to be
# busy, and has 3 to 12 of them at C = 10^5.
BLOCK_BYTES = {"cpu": 1 << 20, "cuda": 128 << 20}
# Bytes of cosines [B, C] that are kept; beyond it every walk computes them again.
STORE_BYTES = {"cpu": 16 << 20, "cuda": 512 << 20}
TRACED_CLASSES = 1 << 14  # up to which a trace evaluates all candidates in one operation
KAPPAS_AT_ONCE = 3  # of the certified search's first step, the largest block there is
SMALLEST_CHUNK = 64
FLOOR = -2.0  # below any cosine: the maximum over no class at all


class Block(NamedTuple):
    """Some classes of a scan."""

    start: int  # number of the first class
    prototypes: Tensor  # [c, d]
    cosine: Tensor  # [B, c]; -inf at the target


@dataclass(frozen=True)
class Target:
    """The labelled class of each sample, kept apart: with a margin, or 1 - p near 0, a difference would cancel."""

    index: Tensor  # [B], number of the class in this scan; -1 without a label, or where another rank holds it
    cosine: Tensor  # [B]; -inf without a label
    prototype: Tensor  # [B, d]; 0 without a label


@dataclass(frozen=True)
class SoftmaxState:
    """The softmax at n kappas for each of B samples.

    "The rest" is all classes but the target; all classes where there is none.

    Attributes:
        kappa: [n, B].
        nearest: [n, B], the largest cosine of the rest.
        mass: [n, B], sum of exp(kappa (z_c - nearest)) over the rest.
        rest_sum: [n, B, d], sum of exp(kappa (z_c - nearest)) times the prototype, over the rest.
        log_odds: [n, B], log of the target's mass over the rest's; -inf without a target.
        energy: [n, B], Eq. (10).
    """

    kappa: Tensor
    nearest: Tensor
    mass: Tensor
    rest_sum: Tensor
    log_odds: Tensor
    energy: Tensor

    def pick(self, position: Tensor) -> "SoftmaxState":
        """Return the state, n = 1, at one of the kappas of each sample, [B]."""
        num_rows = len(position)
        flat = position * num_rows + torch.arange(num_rows, device=position.device)
        states = (getattr(self, field.name).flatten(0, 1) for field in fields(self))
        return SoftmaxState(*(values.index_select(0, flat).unsqueeze(0) for values in states))

    def put(self, rows: Tensor, other: "SoftmaxState", chosen: Tensor) -> None:
        """Overwrite samples `rows` by the samples of `other` that the mask `chosen` selects."""
        for field in fields(self):
            getattr(self, field.name)[:, rows] = getattr(other, field.name)[:, chosen]

    def rest_mean(self, position: int) -> Tensor:
        """Return the softmax average [B, d] of the rest's prototypes, at one of the kappas."""
        return self.rest_sum[position] / self.mass[position].unsqueeze(1)


@dataclass(frozen=True)
class ClassScan:
    """Embeddings against classes, in blocks of `chunk` classes; no gradient flows here.

    With a process group each rank holds some of the classes and all of the samples; every result is that of all
    classes, on all ranks.

    Attributes:
        embedding: [B, d], as given.
        weight: [C, d], as given; of a process group this rank's rows.
        unit_embedding: [B, d].
        inverse_norm: [C], 1 / ||w_c||, 0 for a zero row; None: each block is normalised by itself.
        chunk: classes in a block.
        inverse_length: [B], 1 / ||x||, 0 for a zero row; what the embedding's gradient needs.
        group: over which the classes are sharded.
        prototypes: [C, d], where someone has computed them anyway.
        cosines: of each block, [B, c], where they are kept; -inf at the target.
        room: [C, d], in which `cosines` lie, if they lie there.
        target: the labelled classes, if labels are known.
    """

    embedding: Tensor
    weight: Tensor
    unit_embedding: Tensor
    inverse_norm: Tensor | None
    chunk: int
    inverse_length: Tensor | None = None
    group: ProcessGroup | None = None
    prototypes: Tensor | None = None
    cosines: Sequence[Tensor] | None = None
    room: Tensor | None = None
    target: Target | None = None

    @classmethod
    def of(
        cls, embedding: Tensor, weight: Tensor, chunk: int | None = None, group: ProcessGroup | None = None
    ) -> "ClassScan":
        """Prepare a scan of [B, d] against [C, d]; `chunk` from the memory that a block may take, unless given."""
        embedding, weight = embedding.detach(), weight.detach()
        chunk = default_chunk(embedding, weight) if chunk is None else chunk
        dtype = torch.promote_types(torch.promote_types(embedding.dtype, weight.dtype), torch.float32)
        inverse_length = inverse_norms(embedding, dtype)
        unit_embedding = embedding.to(dtype) * inverse_length.unsqueeze(1)
        return cls(embedding, weight, unit_embedding, inverse_norms(weight, dtype), chunk, inverse_length, group)

    @classmethod
    def of_cosine(
        cls, embedding: Tensor, weight: Tensor, unit_embedding: Tensor, prototypes: Tensor, cosine: Tensor
    ) -> "ClassScan":
        """Prepare a scan where everything is computed already."""
        chunk = default_chunk(embedding, weight)
        return cls(
            embedding.detach(),
            weight.detach(),
            unit_embedding.detach(),
            None,
            chunk,
            prototypes=prototypes.detach(),
            cosines=cosine.detach().split(chunk, dim=1),
        )

    def with_labels(self, index: Tensor, has_label: Tensor) -> "ClassScan":
        """Return the same with the labelled classes kept apart.

        Args:
            index: [B], number of the label among this scan's classes; -1 for none, or where another rank holds it.
            has_label: [B], whether any rank holds it.
        """
        assert self.inverse_norm is not None, "a scan of given cosines has no labels"
        rows = index.clamp_min(0)
        inverse_norm = self.inverse_norm[rows] * (index >= 0)
        prototype = self.all_sum(self.weight[rows].to(self.unit_embedding.dtype) * inverse_norm.unsqueeze(1))
        cosine = (self.unit_embedding * prototype).sum(dim=1).masked_fill(~has_label, -torch.inf)
        return replace(self, target=Target(index, cosine, prototype), cosines=None)

    def stored(self, room: Tensor | None = None) -> "ClassScan":
        """Return the same with the cosines kept, in `room` or if they fit into memory set aside for them.

        Args:
            room: [C, d], contents of no value.  B of each d numbers are used, at the place of the same classes: the
                weight's gradient can overwrite the cosines block by block, and keeping them costs no memory.
        """
        if room is None:
            limit = STORE_BYTES.get(self.weight.device.type, STORE_BYTES["cuda"])
            fits = len(self.embedding) * len(self.weight) * self.unit_embedding.element_size() <= limit
            return replace(self, cosines=[block.cosine for block in self.blocks()]) if fits else self
        cosines = []
        for start, prototypes, cosine in self.blocks():
            place = room[start : start + len(prototypes)].view(-1)[: cosine.numel()].view_as(cosine)
            cosines.append(place.copy_(cosine))
        return replace(self, cosines=cosines, room=room)

    def in_float64(self, rows: Tensor) -> "ClassScan":
        """Return a scan of some samples in float64, normalised from the original numbers, without labels.

        On the CPU, with a copy of the weight, if the device has no float64.
        """
        place = float64_device(self.embedding.device)
        embedding, weight = self.embedding[rows].to(place), self.weight.to(place)
        unit_embedding = embedding.double() * inverse_norms(embedding, torch.float64).unsqueeze(1)
        return ClassScan(embedding, weight, unit_embedding, None, self.chunk, group=self.group)

    def prototype_rows(self, start: int) -> Tensor:
        """Return the unit rows [c, d] of the block of classes from `start` on."""
        if self.prototypes is not None:
            return self.prototypes[start : start + self.chunk]
        rows = self.weight[start : start + self.chunk].to(self.unit_embedding.dtype)
        known = self.inverse_norm
        inverse_norm = inverse_norms(rows, rows.dtype) if known is None else known[start : start + self.chunk]
        return rows * inverse_norm.unsqueeze(1)

    def blocks(self, rows: Tensor | None = None) -> Iterator[Block]:
        """Yield the classes in order, with the cosines of all samples or of `rows`."""
        unit_embedding = _of(rows, self.unit_embedding)
        for number, start in enumerate(range(0, len(self.weight), self.chunk)):
            prototypes = self.prototype_rows(start)
            if self.cosines is not None:
                cosine = _of(rows, self.cosines[number])
            else:
                cosine = unit_embedding @ prototypes.T
                self._mask_target(cosine, start, rows)
            yield Block(start, prototypes, cosine)

    def solve(
        self, kappa: Tensor, rows: Tensor | None = None, beyond: Tensor | None = None
    ) -> tuple[SoftmaxState, Tensor | None]:
        """Return the softmax at `kappa` [n, B] or [n, 1], of all samples or of `rows`, in one walk.

        The largest cosine is known at the end only, so sums are kept relative to the largest so far.

        Args:
            kappa: where the average is wanted, a matrix product for each.
            rows: numbers of samples.
            beyond: [B], one more kappa of each, of which only `others` is wanted.

        Returns:
            The state, and `others` at `beyond`.
        """
        unit_embedding = _of(rows, self.unit_embedding)
        num_rows, dim = unit_embedding.shape
        kappa = kappa.to(unit_embedding.dtype).expand(kappa.shape[0], num_rows)
        num_sums = kappa.shape[0]
        every = kappa if beyond is None else torch.cat([kappa, beyond.to(kappa.dtype).unsqueeze(0)])
        nearest = unit_embedding.new_full((num_rows,), FLOOR)
        mass = unit_embedding.new_zeros(())
        total = unit_embedding.new_zeros(())
        for block in self.blocks(rows):
            before, nearest = nearest, torch.maximum(nearest, block.cosine.amax(dim=1))
            power = powers(every.unsqueeze(-1), block.cosine - nearest.unsqueeze(1))
            flat = power[:num_sums].reshape(num_sums * num_rows, power.shape[-1])
            if block.start == 0:
                mass, total = power.sum(dim=-1), flat @ block.prototypes
            else:
                shrink = (every * (before - nearest)).exp_()
                mass = torch.addcmul(power.sum(dim=-1), mass, shrink)
                total = total.mul_(shrink[:num_sums].reshape(-1, 1)).addmm_(flat, block.prototypes)
        if self.group is not None:
            local, nearest = nearest, self._all_max(nearest)
            shrink = (every * (local - nearest)).exp_()
            mass, total = self.all_sum(mass * shrink), self.all_sum(total * shrink[:num_sums].reshape(-1, 1))
        mass = mass.clamp_min(torch.finfo(mass.dtype).tiny)  # zero where the target is the only class
        total = total.reshape(num_sums, num_rows, dim)
        log_odds = self.log_odds(every, nearest, mass, rows)
        others = None if beyond is None else self.others(every[-1], nearest, mass[-1], log_odds[-1], rows)
        mass, log_odds = mass[:num_sums], log_odds[:num_sums]
        if self.target is None:
            residual = torch.addcmul(unit_embedding, total, mass.reciprocal().unsqueeze(-1), value=-1)
        else:
            share = log_odds.sigmoid()
            rest = torch.sigmoid(-log_odds) / mass
            of_target = torch.addcmul(unit_embedding, _of(rows, self.target.prototype), share.unsqueeze(-1), value=-1)
            residual = of_target.addcmul_(total, rest.unsqueeze(-1), value=-1)
        # Of the difference: the expanded form 1 - 2 s + |m|^2 cancels where the two nearly agree.
        energy = 0.5 * torch.linalg.vector_norm(residual, dim=-1).square()
        return SoftmaxState(kappa, nearest.expand_as(kappa), mass, total, log_odds, energy), others

    def log_odds(self, kappa: Tensor, nearest: Tensor, mass: Tensor, rows: Tensor | None) -> Tensor:
        """Return the logarithm of the target's mass over the rest's; -inf without a target."""
        if self.target is None:
            return torch.full_like(mass, -torch.inf)
        return kappa * (_of(rows, self.target.cosine) - nearest) - mass.log()

    def others(self, kappa: Tensor, nearest: Tensor, mass: Tensor, log_odds: Tensor, rows: Tensor | None) -> Tensor:
        """Return 1 - p of the nearest class, the target included; it falls with kappa."""
        log_nearest = torch.zeros_like(mass)
        if self.target is not None:
            log_nearest = kappa * (_of(rows, self.target.cosine) - nearest).clamp_min(0)
        return -torch.expm1(log_nearest - mass.log() + logsigmoid(-log_odds))

    def nearest_of_all(self, nearest: Tensor, rows: Tensor | None) -> Tensor:
        """Return the largest cosine, the target included, from that of the rest."""
        return nearest if self.target is None else torch.maximum(nearest, _of(rows, self.target.cosine))

    def mean(self, state: SoftmaxState, position: int, rows: Tensor | None = None) -> Tensor:
        """Return m of Eq. (12), the softmax average of all prototypes, [B, d], at one kappa of a state of `rows`."""
        rest_mean = state.rest_mean(position)
        if self.target is None:
            return rest_mean
        share = state.log_odds[position].sigmoid().unsqueeze(1)
        return torch.lerp(rest_mean, _of(rows, self.target.prototype), share)

    def inner(self, state: SoftmaxState, position: int, rows: Tensor | None = None) -> Tensor:
        """Return x . m, the average cosine, [B]; it grows with kappa."""
        inner = (_of(rows, self.unit_embedding) * state.rest_sum[position]).sum(dim=1) / state.mass[position]
        if self.target is None:
            return inner
        target_cosine = _of(rows, self.target.cosine).clamp_min(-1)  # -inf, of share 0, without a label
        return torch.lerp(inner, target_cosine, state.log_odds[position].sigmoid())

    def log_masses(self, kappa: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest cosine [B] and log sum exp(kappa (z - largest)) over all classes, [n, B] for [n, 1]."""
        nearest = self.unit_embedding.new_full((self.unit_embedding.shape[0],), FLOOR)
        for block in self.blocks():
            nearest = torch.maximum(nearest, block.cosine.amax(dim=1))
        nearest = self._all_max(nearest)
        if self.target is not None:
            nearest = torch.maximum(nearest, self.target.cosine)
        mass = nearest.new_zeros(())
        groups = kappa.to(nearest.dtype).unsqueeze(-1).split(traced_at_once(len(kappa), len(self.weight)))
        for block in self.blocks():
            gap = block.cosine - nearest.unsqueeze(1)
            sums = torch.cat([powers(group, gap).sum(dim=-1) for group in groups])
            mass = sums if block.start == 0 else mass + sums
        mass = self.all_sum(mass)
        if self.target is not None:
            mass = mass + (kappa.to(mass.dtype) * (self.target.cosine - nearest)).exp()
        return nearest, mass.log()

    def prototype_sum(self) -> Tensor:
        """Return the sum of all prototypes, [d], float64 if the device has it."""
        dtype, starts = sum_dtype(self.weight.device), range(0, len(self.weight), self.chunk)
        parts = [self.prototype_rows(start).to(dtype).sum(dim=0) for start in starts]
        return self.all_sum(torch.stack(parts).sum(dim=0))

    def _mask_target(self, cosine: Tensor, start: int, rows: Tensor | None) -> None:
        """Write -inf at the target into the cosines of a block of classes from `start` on."""
        if self.target is not None:
            put_at_target(cosine, _of(rows, self.target.index), start, -torch.inf)

    def _all_max(self, values: Tensor) -> Tensor:
        if self.group is not None:
            values = values.clone()
            all_reduce(values, ReduceOp.MAX, self.group)
        return values

    def all_sum(self, values: Tensor) -> Tensor:
        """Return the sum over the ranks that share the classes, in place."""
        if self.group is not None:
            all_reduce(values, group=self.group)
        return values

    def agreed(self, decision: Tensor) -> Tensor:
        """Return the first rank's mask: what the ranks do next must be the same."""
        if self.group is None:
            return decision
        shared = decision.to(torch.uint8)
        broadcast(shared, group=self.group, group_src=0)
        return shared.bool()


def put_at_target(values: Tensor, index: Tensor, start: int, at_target: Tensor | float) -> None:
    """Write `at_target`, [B] or a number, at the targets into `values` [B, c] of the classes from `start` on.

    The targets `index` [B] that are none of these classes are passed over, without a look at any value.
    """
    column = (index - start).unsqueeze(1)
    inside = (column >= 0) & (column < values.shape[1])
    column = column.clamp(0, values.shape[1] - 1)
    new = at_target.unsqueeze(1) if isinstance(at_target, Tensor) else at_target
    values.scatter_(1, column, torch.where(inside, new, values.gather(1, column)))


def default_chunk(embedding: Tensor, weight: Tensor) -> int:
    """Return how many classes fit a block of softmax coefficients, a power of two; in a trace all of them."""
    if values_hidden():  # the batch size may be symbolic
        return weight.shape[0]
    per_class = 4 * KAPPAS_AT_ONCE * max(len(embedding), 1)
    fitting = BLOCK_BYTES.get(embedding.device.type, BLOCK_BYTES["cuda"]) // per_class
    return max(SMALLEST_CHUNK, 1 << int(math.log2(max(fitting, 1))))


def traced_at_once(num_kappas: int, num_classes: int) -> int:
    """Return for how many kappas one operation computes [n, B, C]: in a trace many, as few operations compile soon."""
    return max(1, num_kappas * TRACED_CLASSES // num_classes) if values_hidden() else 1


def _of(rows: Tensor | None, values: Tensor) -> Tensor:
    """Return some samples; rows come sorted and once each, so that as many as there are need no copy."""
    return values if rows is None or rows.shape[0] == values.shape[0] else values[rows]
