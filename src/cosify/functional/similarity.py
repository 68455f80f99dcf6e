"""Cosine similarity of embeddings and classifier weights, Eq. (1)."""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from cosify.functional.checks import check_rows


def cosine(embedding: Tensor, weight: Tensor) -> Tensor:
    """Return the cosine of every embedding and every classifier weight.

    Kobayashi, Eq. (1).  Deviation: a zero row has no direction; its cosine is 0 for every class and its gradient 0.

    Args:
        embedding: [B, d], any norm.
        weight: [C, d], any norm.

    Returns:
        [B, C] in [-1, 1] up to rounding, float32 also under autocast (float64 for float64 inputs).

    Raises:
        ValueError: if the shapes do not fit or a CPU input is not finite.
        TypeError: if an input is not floating point.
    """
    check_rows(embedding, weight)
    with full_precision(embedding.device):
        return F.linear(unit_rows(embedding), unit_rows(weight))


def unit_rows(rows: Tensor) -> Tensor:
    """Divide each row by its Euclidean norm, in float32 or better; a zero row stays zero and gets gradient zero.

    The rows are first divided by their largest entry, a constant of the gradient because the result does not depend
    on scale: squares of entries near 1e-30 or 1e30 would leave float32.
    """
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    if rows.shape[-1] == 0:
        return rows
    largest = rows.detach().abs().amax(dim=-1, keepdim=True)
    rows = rows / largest.masked_fill(largest == 0, 1.0)
    norm = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    unit: Tensor = rows / norm.masked_fill(norm == 0, torch.inf)
    return unit


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Switch autocast off for `device`: in bfloat16 a logit at kappa = 148 would be wrong by 0.05."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
