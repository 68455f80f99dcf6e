"""Cosine similarity of embeddings and classifier weights, Eq. (1)."""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from cosify.functional.checks import check_finite, check_rows, values_hidden
from cosify.functional.float64 import has_float64
from cosify.functional.fusion import fused

LOG2_E = math.log2(math.e)
SHORT, LONG = 1e-15, 1e15  # between them, squares and products with inverses stay far from the limits of float32
SMALLEST = 1e-300  # below the norm of any row of float32 but zeros
FEW = 32  # up to so many numbers, Python compares faster than torch
SCALED_NUMBERS = 1 << 26  # in a block of rows that are scaled for their norms, 256 MiB


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


def evaluated_unit_rows(rows: Tensor) -> Tensor:
    """Return `unit_rows` where no gradient is wanted, by five operations instead of nine on a device with float64.

    There squares of float32's numbers are far from the limits.
    """
    if rows.dtype == torch.float32 and has_float64(rows.device):
        return F.normalize(rows.double(), dim=1, eps=SMALLEST).float()
    return unit_rows(rows)


def is_ordinary(length: Tensor) -> bool:
    """Return whether lengths of rows on the CPU, [B], are finite and far from the limits of float32.

    The answer is no on an accelerator, where finding out would wait for the device, and without rows.
    """
    if length.device.type != "cpu" or len(length) == 0:
        return False
    extremes = length if len(length) <= FEW else torch.stack(length.aminmax())
    return all(SHORT < value < LONG for value in extremes.tolist())


def inverse_norms(rows: Tensor, dtype: torch.dtype, name: str) -> tuple[Tensor, bool]:
    """Return 1 / ||row|| of each row [n, d] in `dtype`, 0 for a zero row, and whether all are known to be ordinary.

    Squares of entries near 1e-30 or 1e30 leave float32, so rows are scaled by their largest entry first: on the CPU
    only those that need it; elsewhere all of them, in blocks, because finding those that need it would wait for the
    device.
    Deviation: a row of entries below 1e-37 (1e-300 in float64), whose inverse the dtype cannot hold, counts as zero.

    Raises:
        ValueError: if rows on the CPU are not finite; `name` is what they are called.
    """
    if rows.shape[1] == 0:
        return torch.zeros(len(rows), dtype=dtype, device=rows.device), False
    if values_hidden():
        return _scaled_inverse_norms(rows, dtype), False
    if rows.device.type != "cpu":
        parts = [_scaled_inverse_norms(block, dtype) for block in rows.split(max(1, SCALED_NUMBERS // rows.shape[1]))]
        return parts[0] if len(parts) == 1 else torch.cat(parts), False
    norm = torch.linalg.vector_norm(rows, dim=1, dtype=dtype)
    inverse: Tensor = norm.reciprocal()
    if is_ordinary(norm):  # and finite
        return inverse, True
    check_finite(rows, name)
    extreme = ((norm < SHORT) | ~(norm < LONG)).nonzero().squeeze(1)
    inverse[extreme] = _scaled_inverse_norms(rows[extreme], dtype)
    return inverse, False


@fused
def _scaled_inverse_norms(rows: Tensor, dtype: torch.dtype) -> Tensor:
    shortest = 1e-300 if dtype == torch.float64 else 1e-37
    largest = torch.linalg.vector_norm(rows, ord=torch.inf, dim=1, dtype=dtype)
    scale = largest.clamp_min(shortest)
    length = torch.linalg.vector_norm(rows.to(dtype) / scale.unsqueeze(1), dim=1)
    # Not 1 / (scale * length), as that product may leave float32 where the quotients do not.
    inverse: Tensor = scale.reciprocal() / length
    return inverse.masked_fill(largest < shortest, 0.0)


def powers(kappa: Tensor, gap: Tensor, log_scale: Tensor | None = None) -> Tensor:
    """Return exp(kappa * gap + log_scale), broadcast, the inner loop of everything.

    On a CPU to base two: `torch.exp2` takes a fifth of the time of `torch.exp` (0.13 against 0.6 ns a number with
    AVX-512, torch 2.14), and `torch.exp` thirty times as long where the result is denormal, as it is for most classes
    at a large kappa.  Hence the floor too, 2^-125: nothing beside the largest power, which is near 1.
    """
    if gap.device.type != "cpu":  # every operation counts, and denormal numbers do not
        return (kappa * gap if log_scale is None else torch.addcmul(log_scale, kappa, gap)).exp_()
    kappa = kappa * LOG2_E
    exponent = kappa * gap if log_scale is None else torch.addcmul(log_scale * LOG2_E, kappa, gap)
    return exponent.clamp_(min=-125).exp2_()


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Switch autocast off for `device`: in bfloat16 a logit at kappa = 148 would be wrong by 0.05."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
