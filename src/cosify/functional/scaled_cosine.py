"""Eqs. (1) and (2): kappa times the cosine, and its gradients, at the price of a linear layer.

With x~ = x / ||x||, w~_c = w_c / ||w_c||, logits kappa x~ . w~_c and the gradient g by them,

    dx = kappa / ||x|| (I - x~ x~^T) sum_c g_c w~_c,
    dw_c = 1 / ||w_c|| (I - w~_c w~_c^T) sum_i g_ic kappa_i x~_i,
    dkappa = x~ . sum_c g_c w~_c.

These are the three matrix products of a linear layer; the normalisation then takes a part off their results.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from cosify.functional import similarity
from cosify.functional.checks import check_shapes, values_hidden
from cosify.functional.rows import Rows, common_dtype
from cosify.functional.search import Scan
from cosify.functional.search.blocks import along, divides_first
from cosify.functional.similarity import full_precision


class ByAutograd:
    """Cosines by operations that a compiler, a transform or a second derivative can follow."""

    def __init__(self, embedding: Tensor, weight: Tensor) -> None:
        self._given = embedding, weight
        self._cosine = similarity.cosine(embedding, weight)

    def scan(self) -> Scan:
        """Return what a search for kappa reads."""
        samples, classes = (Rows.of(given, self._cosine.dtype) for given in self._given)
        return Scan.of_rows(samples.divided(), classes.divided()).keeping(self._cosine.detach())

    def times(self, kappa: Tensor) -> Tensor:
        """Return kappa times the cosines, [B, C], for kappa [1] or [B]."""
        return kappa.to(self._cosine.dtype).reshape(-1, 1) * self._cosine


class ByHand:
    """The same with a backward pass of our own: fewer operations, each of which reads all numbers.

    Where the classes have ordinary norms, the product is divided by these, not the weight: one copy of it less.

    Args:
        embedding: [B, d], any norm.
        weight: [C, d], any norm.
        scanned: whether `scan` will be called.
    """

    def __init__(self, embedding: Tensor, weight: Tensor, scanned: bool) -> None:
        check_shapes(embedding, weight)
        self._given, dtype = (embedding, weight), common_dtype(embedding, weight)
        self._samples = Rows.of(embedding, dtype, "embedding").divided()
        classes = Rows.of(weight, dtype)
        given = classes.ordinary and not (scanned and divides_first(embedding))
        self._classes = classes if given else classes.divided()
        self._cosine: Tensor | None = None

    def scan(self) -> Scan:
        """Return what a search for kappa reads."""
        self._cosine = along(self._samples.whole(), *self._classes.factors(0, len(self._classes.given)))
        return Scan.of_rows(self._samples, self._classes).keeping(self._cosine)

    def times(self, kappa: Tensor) -> Tensor:
        """Return kappa times the cosines, [B, C], for kappa [1] or [B]."""
        if unpack_dual(kappa).tangent is not None:
            return ByAutograd(*self._given).times(kappa)
        logits: Tensor = _ScaledCosine.apply(*self._given, kappa, self._samples, self._classes, self._cosine)
        return logits


def cosines(embedding: Tensor, weight: Tensor, scanned: bool) -> ByAutograd | ByHand:
    """Return the cosines of [B, d] and [C, d] in the way that the context allows; `scanned`: its `scan` will be called.

    Raises:
        ValueError: if shapes do not fit, or a CPU input is not finite.
    """
    traced = values_hidden() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    if traced or any(unpack_dual(given).tangent is not None for given in (embedding, weight)):
        return ByAutograd(embedding, weight)
    return ByHand(embedding, weight, scanned)


class _ScaledCosine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        embedding: Tensor,
        weight: Tensor,
        kappa: Tensor,
        samples: Rows,
        classes: Rows,
        cosine: Tensor | None,
    ) -> Tensor:
        scale, unit_embedding = kappa.to(classes.inverse.dtype).reshape(-1, 1), samples.whole()
        rows, factor = classes.factors(0, len(weight))
        ctx.is_unit = factor is None
        scaled = unit_embedding * scale
        logits = along(scaled, rows, factor) if cosine is None else cosine * scale
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
                again = ByAutograd(aliases[0], aliases[1]).times(aliases[2])
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
