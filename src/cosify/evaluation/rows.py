"""Cached features in blocks of rows: they may be memory-mapped, and more than fits into memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

AT_ONCE = 4096  # rows

Rows = Tensor | NDArray[np.floating]
Labels = Tensor | NDArray[np.integer]


def to_tensor(values: Rows | Labels) -> Tensor:
    """Return a tensor without a gradient; an array is copied, as it may be a read-only map."""
    return values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))


def to_float64(values: ArrayLike | Tensor) -> NDArray[np.float64]:
    """Return an array of float64, also of a tensor that NumPy does not take: on a GPU, in bfloat16, with a graph."""
    numbers: Any = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values
    return np.asarray(numbers, dtype=np.float64)


def row_blocks(rows: Rows, size: int | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Yield each block as a slice and its rows, at most `size`, by default 4096."""
    size = AT_ONCE if size is None else size
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        yield part, to_tensor(rows[part])
