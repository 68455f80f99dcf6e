"""The cosine-softmax loss, Eq. (2), and its one-variable simplification, Eq. (15)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from cosify.functional.checks import check_kappa, check_labels, check_num_classes
from cosify.functional.margin import Margin
from cosify.functional.similarity import cosine, full_precision


def cosine_softmax_loss(
    embedding: Tensor, weight: Tensor, labels: Tensor, kappa: float | Tensor, margin: float = 0.0
) -> Tensor:
    """Return the mean cross-entropy of the kappa-scaled cosines.

    Kobayashi, Eq. (2); with `margin`, CosFace (Wang et al., CVPR 2018): the margin is taken off the target cosine, for
    soft targets off each cosine in proportion to its target.

    Args:
        embedding: [B, d], any norm.
        weight: [C, d], any norm.
        labels: class indices [B] in [0, C), or soft targets [B, C].
        kappa: > 0, scalar or [B]; a tensor keeps its gradient, so detach an estimate.
        margin: cosine margin, >= 0.

    Returns:
        Scalar, float32 (float64 for float64 inputs), the mean over samples.

    Raises:
        ValueError: if shapes do not fit, labels are out of range, kappa is not above 0 or the margin is negative.
    """
    similarity = cosine(embedding, weight)
    check_num_classes(weight.shape[0])
    check_labels(labels, *similarity.shape)
    labels = labels.to(similarity.dtype) if labels.is_floating_point() else labels.long()
    check_kappa(kappa, embedding.shape[0])
    Margin(margin)  # checks it
    with full_precision(embedding.device):
        if margin > 0:
            hard = not labels.is_floating_point()
            target = F.one_hot(labels, weight.shape[0]) if hard else labels
            similarity = similarity - margin * target.to(similarity.dtype)
        scale = kappa.to(similarity.dtype).reshape(-1, 1) if isinstance(kappa, Tensor) else kappa
        return F.cross_entropy(scale * similarity, labels)


def simplified_loss(target_cosine: Tensor, num_classes: int, kappa: float | Tensor) -> Tensor:
    """Return the loss of a sample whose other cosines are zero.

    Kobayashi, Eq. (15): -kappa z_y + log(exp(kappa z_y) + C - 1), computed without overflow.

    Args:
        target_cosine: z_y in [-1, 1], any shape.
        num_classes: C, at least 2.
        kappa: > 0, scalar or a shape that broadcasts.

    Returns:
        The loss, in the broadcast shape.

    Raises:
        ValueError: for fewer than two classes, or a kappa that is not above 0.
    """
    check_num_classes(num_classes)
    check_kappa(kappa.reshape(-1) if isinstance(kappa, Tensor) else kappa, torch.as_tensor(kappa).numel())
    return F.softplus(math.log(num_classes - 1) - kappa * target_cosine)
