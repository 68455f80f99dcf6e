"""A cosine head whose classes are spread over processes, for more classes than one device holds."""

import copy
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

from cosify.errors import InputError
from cosify.functional.checks import check_rows, check_shapes
from cosify.functional.search import Scan
from cosify.functional.search.shards import Shards
from cosify.functional.similarity import full_precision
from cosify.heads.cosine_head import CosineHead

INIT_BLOCK = 1024  # classes initialised from one seed, so that the start does not depend on the number of processes


class ClassParallelCosineLinear(CosineHead):
    """`CosineLinear` with the classes split over a process group, to be trained through `CosineSoftmaxLoss`.

    Kobayashi, Sec. 3.4.1, has 93,431 classes; this has room for as many as the group's memory.  Each process holds the
    rows of its `classes` and no others.  kappa*, the loss and the gradients are those of one process on the
    concatenated batch: samples are gathered, each process compares all of them with its own classes, and sums are
    reduced, of [B] to [B, d] numbers each.

    The backbone may be wrapped in DDP or FSDP, which average its gradient over processes; the gradient that it gets
    from here is multiplied by their number, so that the average is the gradient of the mean over all samples.  This
    module must not be wrapped: each process' rows are its own.  Give its parameters to the same optimiser, one that
    treats each number alone, such as SGD or Adam.  Clip the gradients of backbone and head apart, or by a norm that
    sums the squares of all rows over the processes: the plain norm differs between them, and with it the backbones.
    `cosify train --set class_parallel=true` does all this.

    It loads the state of a plain head, too, and takes its own rows.

    Args:
        in_features: d.
        num_classes: C over all processes, at least one for each.
        process_group: default: all processes; without `torch.distributed`, this one.
        kappa: as in `CosineLinear`.
        sample_fraction: below 1, each step compares the samples with their own classes and a random choice of the
            others, this share of C in all (Partial-FC, An et al., CVPR 2022).  kappa* is then the minimiser over the
            chosen classes, an approximation: fewer classes give a smaller kappa.
        start_kappa: as in `CosineLinear`.
        start_norm: as in `CosineLinear`.
        device: where the parameters lie.
        dtype: of `weight`.

    Attributes:
        classes: range of the classes held here.
        own_rows: which samples of the last batch, and entries of `last_kappa`, are this process' own.

    Raises:
        ValueError: if there are fewer classes than processes, or as in `CosineLinear`.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        process_group: ProcessGroup | None = None,
        kappa: float | str = "ls",
        sample_fraction: float = 1.0,
        start_kappa: float | None = None,
        start_norm: float | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if process_group is None and dist.is_initialized():
            process_group = dist.group.WORLD
        self.process_group = process_group
        rank, world_size = place_in(process_group)
        if num_classes < world_size:
            raise InputError(
                f"{num_classes} classes came for {world_size} processes, expected at least one each; use CosineLinear"
            )
        if not 0 < sample_fraction <= 1:
            raise InputError(f"sample_fraction is {sample_fraction}, expected a share in (0, 1], such as 0.1")
        self.in_features = in_features
        self.sample_fraction = sample_fraction
        self.classes = class_range(num_classes, rank, world_size)
        self.weight = nn.Parameter(torch.empty(len(self.classes), in_features, device=device, dtype=dtype))
        self.reset_parameters()
        self._setup(num_classes, in_features, kappa, "running", start_kappa, start_norm)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weight as `nn.Linear` does, the same for any number of processes, and start kappa anew."""
        if "kappa" in self._buffers:  # not yet in the constructor
            self.init_non_persistent_buffers()
        if self.weight.is_meta:  # has no numbers; `to_empty` and this method give it some
            return
        seed = torch.randint(2**31, (1,), device=self.weight.device)
        if self.process_group is not None:
            dist.broadcast(seed, group=self.process_group, group_src=0)
        bound = self.in_features**-0.5
        first = self.classes.start - self.classes.start % INIT_BLOCK
        for start in range(first, self.classes.stop, INIT_BLOCK):
            generator = torch.Generator().manual_seed(int(seed) + start)
            block = torch.empty(INIT_BLOCK, self.in_features).uniform_(-bound, bound, generator=generator)
            low, high = max(start, self.classes.start), min(start + INIT_BLOCK, self.classes.stop)
            self.weight[low - self.classes.start : high - self.classes.start] = block[low - start : high - start]

    def forward(self, embedding: Tensor) -> Tensor:
        """Map embeddings [B, d] to the logits [B, c] of this process' classes, with the running kappa; no gradient."""
        check_shapes(embedding, self.weight)
        scan = Scan.of(embedding, self.weight)
        with full_precision(embedding.device):
            return self.inference_kappa() * torch.cat([block.cosine for block in scan.blocks], dim=1)

    @torch.no_grad()
    def predict(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest of all classes and its cosine, for this process' samples.

        Every process of the group has to call it at the same time; the numbers of samples may differ.

        Args:
            embedding: [B, d].

        Returns:
            Class indices [B], the smaller one of equals, and cosines [B].

        Raises:
            ValueError: if the shape does not fit, or a CPU input is not finite.
        """
        check_shapes(embedding, self.weight)
        (everything,), own = _gather(self.process_group, embedding.detach())
        with full_precision(embedding.device):
            scan = Scan.of(everything, self.weight, group=self.process_group)
            best = scan.blocks.embedding.new_full((len(everything),), -torch.inf)
            index = torch.zeros(len(everything), dtype=torch.int64, device=best.device)
            for block in scan.blocks:
                largest, position = block.cosine.max(dim=1)
                index = torch.where(largest > best, position + block.start + self.classes.start, index)
                best = torch.maximum(best, largest)
        overall = scan.shards.max(best)
        minus_index = scan.shards.max(torch.where(best == overall, -index, -self.num_classes))
        return -minus_index[own], overall[own]

    @torch.no_grad()
    def cosine_to(self, embedding: Tensor, labels: Tensor) -> Tensor:
        """Return the cosine of each of this process' samples with the class of its label.

        Every process of the group has to call it at the same time; the numbers of samples may differ.

        Args:
            embedding: [B, d].
            labels: [B], class indices in [0, C).

        Returns:
            [B].

        Raises:
            ValueError: if the shape does not fit, or a CPU input is not finite.
        """
        check_rows(embedding, self.weight)
        (everything, index), own = _gather(self.process_group, embedding.detach(), labels)
        index = index - self.classes.start
        held = (index >= 0) & (index < len(self.classes))
        with full_precision(embedding.device):
            found = F.cosine_similarity(everything[held].float(), self.weight[index[held]].float())
        cosine = found.new_zeros(len(everything)).masked_scatter(held, found)
        return Shards(self.process_group).sum(cosine)[own]

    def gathered(self, embedding: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the samples of all processes, in their order."""
        if self.process_group is not None:
            embedding, labels, weights, self.own_rows = _Gather.apply(embedding, labels, weights, self.process_group)
        return embedding, labels, weights

    def mean_of_all(self, values: Tensor) -> Tensor:
        """Return the mean of [B] values over the samples of all processes, a scalar."""
        sums = Shards(self.process_group).sum(torch.stack([values.sum(), values.new_tensor(len(values))]))
        return sums[0] / sums[1]

    def classes_of(self, labels: Tensor) -> tuple[Tensor, Tensor, int]:
        """Return the weight of this process' classes, each label's index among them or -1, and how many all have.

        With a `sample_fraction` in training, these are the classes chosen for this step.
        """
        index = labels - self.classes.start
        index = torch.where((index >= 0) & (index < len(self.classes)), index, -1)
        if self.sample_fraction == 1.0 or not self.training:
            return self.weight, index, self.num_classes
        chosen = self._sample(index)
        place = torch.searchsorted(chosen, index)
        num_chosen = Shards(self.process_group).sum(torch.tensor(len(chosen), device=labels.device))
        return self.weight[chosen], torch.where(index >= 0, place, -1), int(num_chosen)

    @torch.no_grad()
    def _sample(self, index: Tensor) -> Tensor:
        """Return sorted numbers of this process' classes: those of `index`, filled up at random."""
        num = max(1, round(self.sample_fraction * len(self.classes)))
        priority = torch.rand(len(self.classes), device=index.device)
        priority[index[index >= 0]] = 2.0
        present = int((priority == 2.0).sum())
        return priority.topk(max(num, present)).indices.sort().values

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take this process' rows from the weight of all classes; a weight of as many rows is taken as it is."""
        weight = state_dict.get(prefix + "weight")
        if weight is not None and len(weight) == self.num_classes:
            # Cloned: with assign=True, a view would keep the memory of all classes.
            state_dict[prefix + "weight"] = weight[self.classes.start : self.classes.stop].clone()
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __deepcopy__(self, memo: dict[int, Any]) -> "ClassParallelCosineLinear":
        """Copy the rows for an EMA, say; the process group, which cannot be copied, stays the same."""
        memo[id(self.process_group)] = self.process_group
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def extra_repr(self) -> str:
        """Show the layer's arguments and the share held here."""
        return (
            f"in_features={self.in_features}, num_classes={self.num_classes}, classes={self.classes},"
            f" kappa={self.kappa_spec!r}"
        )


def class_range(num_classes: int, rank: int, world_size: int) -> range:
    """Return the classes of one process: contiguous, and as many as any other's or one more."""
    return range(num_classes * rank // world_size, num_classes * (rank + 1) // world_size)


def place_in(group: ProcessGroup | None) -> tuple[int, int]:
    """Return this process' rank and the number of processes; 0 and 1 without a group."""
    return (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))


def _gather(group: ProcessGroup | None, *given: Tensor) -> tuple[list[Tensor], slice]:
    """Return the rows of all processes, in one exchange of their bytes, and which of them are this one's.

    Args:
        group: the processes; None: this one is alone.
        given: [n] or [n, d], for the same n; another process may have another n.
    """
    if group is None:
        return [*given], slice(None)
    num_rows, device = len(given[0]), given[0].device
    rank, world_size = place_in(group)
    counts = torch.empty(world_size, 1, dtype=torch.int64, device=device)
    dist.all_gather(list(counts), torch.tensor([num_rows], device=device), group=group)
    sizes: list[int] = counts.flatten().tolist()  # the one look at a value
    rows = [each.unsqueeze(1) if each.ndim == 1 else each for each in given]
    parts = [each.contiguous().view(torch.uint8) for each in rows]
    widths = [part.shape[1] for part in parts]
    padded = torch.zeros(max(sizes), sum(widths), dtype=torch.uint8, device=device)
    torch.cat(parts, dim=1, out=padded[:num_rows])
    pieces = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(pieces, padded, group=group)
    everything = torch.cat([piece[:size] for piece, size in zip(pieces, sizes, strict=True)])
    # Copied also where one row counts as contiguous: a view of wider numbers needs strides that divide.
    copies = (columns.clone(memory_format=torch.contiguous_format) for columns in everything.split(widths, dim=1))
    found = [copy.view(each.dtype).view(-1, *each.shape[1:]) for copy, each in zip(copies, given, strict=True)]
    first = sum(sizes[:rank])
    return found, slice(first, first + num_rows)


class _Gather(torch.autograd.Function):
    """`_gather`; backward, this process' rows times the number of processes, which DDP's average divides by."""

    @staticmethod
    def forward(ctx: Any, embedding: Tensor, labels: Tensor, weights: Tensor, group: ProcessGroup) -> tuple[Any, ...]:
        (rows, *others), ctx.own = _gather(group, embedding, labels, weights)
        ctx.world_size = dist.get_world_size(group)
        ctx.mark_non_differentiable(*others)
        return rows, *others, ctx.own

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        return gradient[ctx.own] * ctx.world_size, None, None, None
