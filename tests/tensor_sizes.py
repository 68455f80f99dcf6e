"""How large the tensors are that come into being."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def tensor_sizes() -> Iterator[set[int]]:
    """Collect the numbers of elements of all tensors that operations return inside, forward and backward."""
    sizes: set[int] = set()

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                sizes.add(result.numel())
            return result

    with Watch():
        yield sizes
