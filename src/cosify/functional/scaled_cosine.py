"""Eqs. (1) and (2): kappa times the cosine, and its gradients, at the price of a linear layer.

With x~ = x / ||x||, w~_c = w_c / ||w_c||, logits kappa x~ . w~_c and the gradient g by them,

    dx = kappa / ||x|| (I - x~ x~^T) sum_c g_c w~_c,
    dw_c = 1 / ||w_c|| (I - w~_c w~_c^T) sum_i g_ic kappa_i x~_i,
    dkappa = x~ . sum_c g_c w~_c.

These are the three matrix products of a linear layer; the normalisation then takes a part off their results.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from cosify.functional.checks import check_shapes, values_hidden
from cosify.functional.rows import Rows, common_dtype
from cosify.functional.search import Scan
from cosify.functional.search.blocks import along, divides_first
from cosify.functional.similarity import cosine, full_precision


def kappa_times_cosine(
    embedding: Tensor, weight: Tensor, kappa_of: Callable[[Scan | None], Tensor], scanned: bool
) -> Tensor:
    """Return kappa times the cosines, [B, C], float32 or float64.

    The backward pass is our own: fewer operations, each of which reads all numbers.  Where the classes have ordinary
    norms, the product is divided by these, not the weight: one copy of it less.  A compiler, a transform or a forward
    derivative gets operations that it can follow.

    Args:
        embedding: [B, d], any norm.
        weight: [C, d], any norm.
        kappa_of: called once; returns kappa, [1] or [B], from what a search for it reads.
        scanned: whether `kappa_of` reads it; if not, it gets None.

    Raises:
        ValueError: if shapes do not fit, or a CPU input is not finite.
    """
    scan = product = None
    traced = values_hidden() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    if traced or any(unpack_dual(given).tangent is not None for given in (embedding, weight)):
        found = cosine(embedding, weight)
        if scanned:
            samples, classes = (Rows.of(given, found.dtype).divided() for given in (embedding, weight))
            scan = Scan.of_rows(samples, classes).keeping(found.detach())
        return _times(kappa_of(scan), found)
    check_shapes(embedding, weight)
    dtype = common_dtype(embedding, weight)
    samples, classes = Rows.of(embedding, dtype, "embedding").divided(), Rows.of(weight, dtype)
    if not classes.ordinary or (scanned and divides_first(embedding)):
        classes = classes.divided()
    if scanned:
        product = along(samples.whole(), *classes.factors(0, len(weight)))
        scan = Scan.of_rows(samples, classes).keeping(product)
    kappa = kappa_of(scan)
    if unpack_dual(kappa).tangent is not None:
        return _times(kappa, cosine(embedding, weight))
    logits: Tensor = _ScaledCosine.apply(embedding, weight, kappa, samples, classes, product)
    return logits


def _times(kappa: Tensor, found: Tensor) -> Tensor:
    return kappa.to(found.dtype).reshape(-1, 1) * found


class _ScaledCosine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        embedding: Tensor,
        weight: Tensor,
        kappa: Tensor,
        samples: Rows,
        classes: Rows,
        product: Tensor | None,
    ) -> Tensor:
        scale, unit_embedding = kappa.to(classes.inverse.dtype).reshape(-1, 1), samples.whole()
        rows, factor = classes.factors(0, len(weight))
        ctx.is_unit = factor is None
        scaled = unit_embedding * scale
        logits = along(scaled, rows, factor) if product is None else product * scale
        ctx.save_for_backward(embedding, weight, kappa, unit_embedding, scaled, samples.inverse, rows, classes.inverse)
        return logits

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        embedding, weight, kappa, unit_embedding, scaled, inverse_length, rows, inverse_norm = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        by_embedding = by_weight = by_kappa = None
        with full_precision(gradient.device):  # autocast may be on in a backward pass
            if torch.is_grad_enabled():  # someone will differentiate again
                # By aliases: one input may depend on another, and hooks of the inputs must run once, on what is
                # returned.
                aliases = [each.view_as(each) for each in (embedding, weight, kappa)]
                inputs = [each for each, want in zip(aliases, wanted, strict=True) if want]
                again = _times(aliases[2], cosine(aliases[0], aliases[1]))
                found = iter(torch.autograd.grad(again, inputs, gradient, create_graph=True))
                return (*(next(found) if want else None for want in wanted), None, None, None)
            by_product = gradient if ctx.is_unit else gradient * inverse_norm
            if wanted[0] or wanted[2]:
                by_unit = by_product @ rows
                radial = (by_unit * unit_embedding).sum(dim=1, keepdim=True)
                if wanted[2]:
                    by_kappa = radial.sum_to_size(kappa.shape[0], 1).reshape(kappa.shape).to(kappa.dtype)
                if wanted[0]:
                    scale = kappa.to(rows.dtype) * inverse_length
                    by_unit.addcmul_(unit_embedding, radial, value=-1).mul_(scale.unsqueeze(1))
                    by_embedding = by_unit.to(embedding.dtype)
            if wanted[1]:
                by_weight = by_product.T @ scaled
                radial = (by_weight * rows).sum(dim=1, keepdim=True)
                by_weight.addcmul_(
                    rows, radial if ctx.is_unit else radial * inverse_norm.square().unsqueeze(1), value=-1
                )
                if ctx.is_unit:
                    by_weight.mul_(inverse_norm.unsqueeze(1))
                by_weight = by_weight.to(weight.dtype)
        return by_embedding, by_weight, by_kappa, None, None, None
