"""Eq. (2) straight from embeddings: the loss and its gradients, Eqs. (12) and (13), without [B, C] for many classes.

The target class is kept apart.  With r the softmax average of the other prototypes and odds' the target's odds with
margin, p' = sigmoid(log odds'), and for hard labels

    loss = log(1 + 1 / odds'),    d loss / d x~ = kappa (1 - p') (r - dz'/dz w_y).

The search for kappa has computed r already, so both of these cost next to nothing, and the backward pass is left with
one matrix product, for the weight (two if the cosines did not fit into memory).  No difference cancels where p' is near
1.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from cosify.functional.fusion import fused, fusing, is_fusing
from cosify.functional.margin import Margin
from cosify.functional.rows import Rows
from cosify.functional.search import Block, ClassBlocks, Labelled, Scan, SoftmaxState, put
from cosify.functional.similarity import full_precision, powers


def with_cosines(scan: Scan, weight: Tensor) -> tuple[Scan, Tensor | None]:
    """Return a scan with its cosines kept, if there is room for them, and whose room that is.

    Returns:
        The scan, and the memory of the future gradient of `weight` [C, d] if that holds the cosines: each block of
        classes keeps them in its own part, so that the gradient can overwrite them block by block.  None if they do not
        fit there, or no gradient of this dtype is wanted.
    """
    will_be = torch.is_grad_enabled() and weight.requires_grad and weight.dtype == scan.blocks.embedding.dtype
    if not will_be or len(scan.blocks.embedding) > weight.shape[1]:
        return scan.stored(), None
    room, kept = torch.empty_like(weight, memory_format=torch.contiguous_format), []
    for block in scan.blocks:
        place = room[block.start : block.start + len(block.rows)].view(-1)
        kept.append(place[: block.cosine.numel()].view_as(block.cosine).copy_(block.cosine))
    return replace(scan, blocks=replace(scan.blocks, kept=kept)), room


def chunked_loss(
    embedding: Tensor,
    weight: Tensor,
    kappa: Tensor,
    scan: Scan,
    state: SoftmaxState,
    margin: Margin,
    label_smoothing: float,
    smooth: float,
    sample_weight: Tensor,
    room: Tensor | None,
) -> Tensor:
    """Return sum(sample_weight * loss) over the samples.

    Kobayashi, Eq. (2), with CosFace's or ArcFace's margin and label smoothing.  The gradient goes to `embedding`
    and `weight`, through their normalisation, and to `kappa`; an estimated kappa carries none.

    Args:
        embedding: [B, d], any norm.
        weight: [C, d], any norm; of a process group this rank's rows.
        kappa: [1] or [B]; only [1] may want a gradient.
        scan: of both, without the labelled classes.
        state: softmax at `kappa`, n = 1.
        margin: on the target cosine.
        label_smoothing: share of the target distribution that is spread over all classes, in [0, 1).
        smooth: of it, the share of each class.
        sample_weight: [B]; 0 for a sample to ignore.
        room: where the cosines of `scan` lie, see `with_cosines`.
    """
    blocks, wants_kappa = scan.blocks, kappa.requires_grad
    assert blocks.apart is not None
    terms: list[Any]
    with torch.no_grad():
        prototype_sum = scan.prototype_sum() if smooth > 0 else None
        loss, *terms = _terms(scan, state, margin, label_smoothing, smooth, sample_weight, prototype_sum, wants_kappa)
    saved = _Saved(
        blocks.embedding, weight, blocks.classes.inverse, blocks.apart, state.kappa[0], state.nearest[0], *terms
    )
    found, settings_of_pass = (loss, saved), (blocks.chunk, smooth, blocks.kept, room)
    result: Tensor = _WithGradients.apply(embedding, weight, kappa, found, *settings_of_pass)
    return result


class _Saved(NamedTuple):
    """Tensors for the backward pass: [B] or [B, d], except the weight and its norms."""

    unit_embedding: Tensor
    weight: Tensor
    inverse_norm: Tensor
    target_index: Tensor
    kappa: Tensor
    nearest: Tensor
    log_scale: Tensor  # log of 1 / (mass of all classes), relative to `nearest`
    of_target: Tensor  # d loss / d (kappa z_y)
    factor: Tensor  # kappa times the sample's weight
    by_embedding: Tensor  # the embedding's gradient, before it is multiplied by that of the loss
    by_kappa: Tensor | None


@fused
def _terms(
    scan: Scan,
    state: SoftmaxState,
    margin: Margin,
    label_smoothing: float,
    smooth: float,
    sample_weight: Tensor,
    prototype_sum: Tensor | None,
    wants_kappa: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Return the loss, and the last entries of `_Saved`, from `log_scale` on."""
    embedding, target = scan.blocks.embedding, scan.target
    assert isinstance(target, Labelled)
    kappa, nearest, mass, rest_mean = state.kappa[0], state.nearest[0], state.mass[0], state.rest_mean[0]
    target_cosine = target.cosine.nan_to_num(neginf=0.0)  # samples without a label weigh 0
    shifted, slope = margin.apply(target_cosine)
    log_mass = mass.log()
    log_odds = kappa * (shifted - nearest) - log_mass
    rest_share = torch.sigmoid(-log_odds)

    loss = -F.logsigmoid(log_odds)  # softplus drops what lies below 2e-9
    of_shifted = label_smoothing - smooth - rest_share  # d loss / d (kappa z'_y)
    of_target = of_shifted * slope
    by_embedding = target.prototype * of_target.unsqueeze(1)
    by_embedding.addcmul_(rest_mean, rest_share.unsqueeze(1))
    rest_logit = torch.zeros_like(loss)
    if prototype_sum is not None:
        of_rest = smooth * (prototype_sum.to(rest_mean.dtype) - target.prototype)
        by_embedding -= of_rest
        rest_logit = (embedding * of_rest).sum(dim=1)
        loss = loss + kappa * ((label_smoothing - smooth) * shifted - rest_logit)
    by_kappa = None
    if wants_kappa:
        by_kappa = (embedding * rest_mean).sum(dim=1) * rest_share
        by_kappa = sample_weight * (by_kappa + of_shifted * shifted - rest_logit)
    radial = (by_embedding * embedding).sum(dim=1, keepdim=True)  # the embedding's length changes nothing
    factor = sample_weight * kappa
    by_embedding.addcmul_(embedding, radial, value=-1)
    by_embedding.mul_((scan.samples.inverse * factor).unsqueeze(1))
    log_scale = F.logsigmoid(-log_odds) - log_mass
    return (sample_weight * loss).sum(), log_scale, of_target, factor, by_embedding, by_kappa


class _WithGradients(torch.autograd.Function):
    """A loss whose gradient by the embedding is known; that by the weight is one more pass over the blocks."""

    @staticmethod
    def forward(
        ctx: Any, embedding: Tensor, weight: Tensor, kappa: Tensor, found: tuple[Tensor, _Saved], *settings: Any
    ) -> Tensor:
        loss, saved = found
        ctx.save_for_backward(*saved)
        ctx.embedding_dtype, ctx.fusing = embedding.dtype, is_fusing()
        ctx.chunk, ctx.smooth, ctx.cosines, ctx.room = settings
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        saved = _Saved(*ctx.saved_tensors)
        # The gradient takes the cosines' place: a second backward pass, with retain_graph, has to compute them again.
        room, cosines = ctx.room, ctx.cosines
        if room is not None:
            ctx.room = ctx.cosines = None
        wants_embedding, wants_weight = ctx.needs_input_grad[:2]
        by_embedding = by_weight = by_kappa = None
        if wants_embedding:
            by_embedding = (grad_loss * saved.by_embedding).to(ctx.embedding_dtype)
        if wants_weight:
            classes = Rows(saved.weight, saved.inverse_norm)
            by_weight = torch.empty_like(saved.weight) if room is None else room
            # Autocast may be on in a backward pass, which runs in a thread of its own.
            with full_precision(saved.weight.device), fusing(ctx.fusing):
                weighted = saved.unit_embedding * (grad_loss * saved.factor).unsqueeze(1)
                for block in ClassBlocks(saved.unit_embedding, classes, ctx.chunk, kept=cosines):
                    rows = slice(block.start, block.start + len(block.rows))
                    tangential = _tangential(block, saved, weighted, ctx.smooth)
                    torch.mul(tangential, saved.inverse_norm[rows].unsqueeze(1), out=by_weight[rows])
        if saved.by_kappa is not None:
            by_kappa = (grad_loss * saved.by_kappa).sum().reshape(1)
        return by_embedding, by_weight, by_kappa, None, None, None, None, None


@fused
def _tangential(block: Block, saved: _Saved, weighted: Tensor, smooth: float) -> Tensor:
    """Return the gradient of some unit prototypes, [c, d], without its part along them.

    It is sum_i factor_i (p'_ic - y_ic) x~_i; `weighted` is factor_i x~_i, times the gradient of the loss.
    """
    log_scale, kappa, nearest = (values.unsqueeze(1) for values in (saved.log_scale, saved.kappa, saved.nearest))
    share = powers(kappa, block.cosine - nearest, log_scale)
    if smooth > 0:
        share -= smooth
    put(share, saved.target_index, block.start, saved.of_target)
    by_prototype = share.T @ weighted
    radial = (by_prototype * block.rows).sum(dim=1, keepdim=True)
    return by_prototype.addcmul_(block.rows, radial, value=-1)
