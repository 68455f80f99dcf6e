"""Cached features, some thousand rows at a time: they may be memory-mapped, and more than fits into memory."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

AT_ONCE = 4096  # rows

Rows = Tensor | NDArray[np.floating]
Labels = Tensor | NDArray[np.integer]


def to_tensor(values: Rows | Labels) -> Tensor:
    """Return a tensor without a gradient; of an array a copy, as it may be a read-only map."""
    return values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))


def row_blocks(rows: Rows, size: int | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Yield where rows lie, and the rows, at most `size` of them, by default 4096."""
    size = AT_ONCE if size is None else size
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        yield part, to_tensor(rows[part])
