"""The classes in blocks: prototypes and cosines of some classes at a time, so that nothing has to hold [B, C].

Every result is a sum over classes after a maximum over classes, so blocks change only the order of summation.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cosify.functional.checks import values_hidden
from cosify.functional.fusion import fused
from cosify.functional.rows import Rows

# Bytes of one block.  On a CPU its softmax coefficients should stay in the cache.  On a GPU it counts the prototypes,
# too; each block costs some hundred launches, and there should be few: 3 at (512, 512, 93431).
BLOCK_BYTES = {"cpu": 1 << 20, "cuda": 256 << 20}
# Bytes of cosines [B, C] that are kept; beyond it every pass computes them again.
STORE_BYTES = {"cpu": 16 << 20, "cuda": 512 << 20}
MANY_CLASSES = 1 << 14  # up to so many, all candidates share one operation in a trace
WINDOW = 3  # candidates in the first step of the certified search, whose blocks are the largest
SMALLEST_CHUNK = 64


class Block(NamedTuple):
    """Some classes; the prototypes are `rows` times `factor`."""

    start: int  # number of the first one
    rows: Tensor  # [c, d]
    factor: Tensor | None  # [c]; None: one
    cosine: Tensor  # [B, c]; -inf at a target that is kept apart


@dataclass(frozen=True)
class ClassBlocks:
    """Samples and classes, `chunk` classes at a time.

    Attributes:
        embedding: [B, d], unit rows.
        classes: C of them.
        chunk: classes in a block.
        apart: [B], index of the class that a sample leaves out, -1 for none; None: no sample does.
        kept: the cosines of each block, [B, c], if they are kept.
    """

    embedding: Tensor
    classes: Rows
    chunk: int
    apart: Tensor | None = None
    kept: Sequence[Tensor] | None = None

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.classes.given)

    def __iter__(self) -> Iterator[Block]:
        """Yield the classes in order, with the cosines of all samples."""
        return self.of()

    def of(self, rows: Tensor | None = None) -> Iterator[Block]:
        """Yield the classes in order, with the cosines of all samples or of `rows`."""
        embedding = some(rows, self.embedding)
        # The first asks for no size: in an exported graph that of a batch is a symbol.
        divided = self.classes.unit is not None or divides_first(embedding)
        for number, start in enumerate(range(0, self.num_classes, self.chunk)):
            stop = start + self.chunk
            factors = (self.classes.block(start, stop), None) if divided else self.classes.factors(start, stop)
            if self.kept is not None:
                yield Block(start, *factors, some(rows, self.kept[number]))
                continue
            cosine = along(embedding, *factors)
            if self.apart is not None:
                put(cosine, some(rows, self.apart), start, -torch.inf)
            yield Block(start, *factors, cosine)


def divides_first(embedding: Tensor) -> bool:
    """Return whether dividing c classes, c d numbers, is cheaper than scaling the shares of a window, 3 B c numbers."""
    return WINDOW * embedding.shape[0] > embedding.shape[1]


def along(direction: Tensor, rows: Tensor, factor: Tensor | None) -> Tensor:
    """Return direction . prototype, [n, c], for directions [n, d] and the two factors of prototypes."""
    found = direction @ rows.T
    return found if factor is None else found.mul_(factor)


@fused
def put(values: Tensor, index: Tensor, start: int, new: Tensor | float) -> None:
    """Write `new`, [B] or a number, into `values` [B, c] of the classes from `start` on, at the classes `index` [B].

    Indices of other classes are skipped, without reading any value.
    """
    index = (index - start).unsqueeze(1)
    column = index.clamp(0, values.shape[1] - 1)
    new = new.unsqueeze(1) if isinstance(new, Tensor) else new
    values.scatter_(1, column, torch.where(column == index, new, values.gather(1, column)))


def fitting(size: int, device: torch.device) -> int:
    """Return how many things of `size` bytes fit a block."""
    return BLOCK_BYTES.get(device.type, BLOCK_BYTES["cuda"]) // size


def default_chunk(num_rows: int, dim: int, num_classes: int, device: torch.device) -> int:
    """Return how many classes fit a block: on a CPU a power of two, elsewhere equal parts; in a trace all of them."""
    if values_hidden():  # the batch size may be symbolic
        return num_classes
    on_cpu = device.type == "cpu"
    per_class = 4 * (WINDOW * max(num_rows, 1) + (0 if on_cpu else dim))
    largest = max(SMALLEST_CHUNK, fitting(per_class, device))
    return 1 << int(math.log2(largest)) if on_cpu else -(-num_classes // -(-num_classes // largest))


def kappas_in_trace(num_kappas: int, num_classes: int) -> int:
    """Return how many kappas share one operation on [n, B, C] in a trace: all of them if there are few classes."""
    return max(1, num_kappas * MANY_CLASSES // num_classes)


def some(rows: Tensor | None, values: Tensor) -> Tensor:
    """Return the samples `rows`; these are sorted and unique, so as many as there are samples need no copy."""
    return values if rows is None or rows.shape[0] == values.shape[0] else values[rows]
