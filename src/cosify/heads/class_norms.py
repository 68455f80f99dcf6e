"""The norms of the classes, kept between evaluations so that a head costs what a linear layer costs."""

import weakref
from typing import NamedTuple

import torch
from torch import Tensor

from cosify.functional.similarity import inverse_norms

SAMPLES = 256  # numbers at least of a weight on the CPU, one a row or more, that are compared with those before


class _Kept(NamedTuple):
    weight: "weakref.ref[Tensor]"
    state: tuple[object, ...]
    inverse: Tensor
    numbers: tuple[Tensor, ...]  # on the CPU a view of some of the weight's, and what they were


class ClassNorms:
    """1 / ||w_c|| of the rows of a weight, computed again when the weight has changed.

    A step, a load, a move or an average of weights changes the weight's version, address or object.  A write past
    autograd, through `weight.data`, changes none of these, nor does a step of a fused optimiser.  So the head also
    forgets its norms with every `train()`, `eval()`, move, load and pass that may be one of training, and on the CPU
    some numbers of every row are compared.  A CUDA stream does not see the norms of another one, and a CUDA graph
    computes its own each time it runs.
    """

    _kept: _Kept | None = None

    def forget(self) -> None:
        """Compute the norms at the next call."""
        self._kept = None

    def inverse(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """Return 1 / ||w_c|| [C] in `dtype`, 0 for a zero row.

        Args:
            weight: [C, d] or [C, d, 1, 1].
            dtype: float32 or float64.

        Raises:
            ValueError: if a weight on the CPU is not finite.
        """
        if _is_captured(weight):
            return inverse_norms(weight.detach().flatten(1), dtype, "weight")[0]
        state = (weight._version, weight.data_ptr(), weight.dtype, dtype, _stream_of(weight))
        kept = self._kept  # once: another thread may forget it
        if (
            kept is None
            or kept.weight() is not weight
            or kept.state != state
            or (kept.numbers and not torch.equal(*kept.numbers))
        ):
            with torch.inference_mode(False), torch.no_grad():
                rows = weight.detach().flatten(1)
                # A step below d lands in every row, each time in another column.
                some = rows.reshape(-1)[:: max(1, min(1 + rows.numel() // SAMPLES, rows.shape[1] - 1))]
                numbers = (some, some.clone()) if rows.device.type == "cpu" else ()
                inverse, _ = inverse_norms(rows, dtype, "weight")
                kept = self._kept = _Kept(weakref.ref(weight), state, inverse, numbers)
        return kept.inverse

    def __getstate__(self) -> None:
        """Be copied and pickled without the norms: the copy's weight is another one."""


def _is_captured(weight: Tensor) -> bool:
    return weight.is_cuda and torch.cuda.is_current_stream_capturing()


def _stream_of(weight: Tensor) -> int | None:
    return torch.cuda.current_stream(weight.device).cuda_stream if weight.is_cuda else None
