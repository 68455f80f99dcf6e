"""Embeddings or classes with their norms, from which unit rows are made block by block."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cosify.functional.similarity import inverse_norms


@dataclass(frozen=True)
class Rows:
    """Vectors of any norm; no gradient flows here.

    Attributes:
        given: [n, d], in any floating point dtype.
        inverse: [n], 1 / ||row||, 0 for a zero row; its dtype, float32 or float64, is that of all results.
        unit: [n, d], the rows divided by their norms; None: each block is divided when it is asked for.
        ordinary: whether all norms are known to be moderate, so that products with the given rows stay far from the
            limits of float32.
    """

    given: Tensor
    inverse: Tensor
    unit: Tensor | None = None
    ordinary: bool = False

    @classmethod
    def of(cls, given: Tensor, dtype: torch.dtype, name: str = "weight") -> "Rows":
        """Return rows with their norms.

        Raises:
            ValueError: if rows on the CPU are not finite.
        """
        given = given.detach()
        inverse, ordinary = inverse_norms(given, dtype, name)
        return cls(given, inverse, None, ordinary)

    def divided(self) -> "Rows":
        """Return the same with all unit rows at hand."""
        return replace(self, unit=self.whole())

    def whole(self) -> Tensor:
        """Return all unit rows."""
        return self.given.to(self.inverse.dtype) * self.inverse.unsqueeze(1) if self.unit is None else self.unit

    def block(self, start: int, stop: int) -> Tensor:
        """Return unit rows from `start` to `stop`."""
        if self.unit is not None:
            return self.unit[start:stop]
        return self.given[start:stop].to(self.inverse.dtype) * self.inverse[start:stop].unsqueeze(1)

    def factors(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        """Return the unit rows from `start` to `stop` as two factors, [.., d] and [..]; None stands for ones.

        Rows of ordinary norms are returned undivided: the caller multiplies its product with them by the second factor.
        """
        if self.unit is None and self.ordinary:
            return self.given[start:stop].to(self.inverse.dtype), self.inverse[start:stop]
        return self.block(start, stop), None


def common_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the dtype to compute in: float64 if a tensor has it, else float32."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype
