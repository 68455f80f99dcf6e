"""Refuse to train a cosine head with a sigmoid loss, where its logits reach one.

A script may choose its loss by a flag, an abbreviation, a file or a default.  So the guard reads no arguments: it sits
in the losses, and looks at the graph that their inputs come from.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import timm.loss
import torch.nn.functional as F
from torch import Tensor

from cosify.errors import InputError
from cosify.models import find_heads
from cosify.models.memory import converted
from cosify.wrapping import wrap_once

# timm's losses that write the sigmoid themselves; its BinaryCrossEntropy and torch's classes call the function below.
_TIMM_LOSSES = (
    "AsymmetricLossMultiLabel",
    "DistributionBalancedLoss",
    "PolyBinaryCrossEntropy",
    "TwoWayLoss",
    "ZlprLoss",
)


def install() -> None:
    """Let every sigmoid loss of torch and timm check where its logits come from; a second call does nothing."""
    wrap_once(F, "binary_cross_entropy_with_logits", functools.partial(_guarded, 0))
    for name in _TIMM_LOSSES:
        if hasattr(timm.loss, name):
            wrap_once(getattr(timm.loss, name), "forward", functools.partial(_guarded, 1))  # 0 is the loss itself


def _guarded(position: int, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    tensors = args[position : position + 1] or tuple(kwargs.values())
    refuse_cosine_logits(tensor for tensor in tensors if isinstance(tensor, Tensor))
    return original(*args, **kwargs)


def refuse_cosine_logits(inputs: Iterable[Tensor]) -> None:
    """Raise if a tensor was computed from the weight of a converted model's cosine head, so that it would train it.

    Raises:
        ValueError: if it was.
    """
    weights = {id(head.weight) for model in list(converted) for head in find_heads(model).values()}
    pending = [tensor.grad_fn for tensor in inputs] if weights else []
    seen = set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if id(getattr(node, "variable", None)) in weights:  # the node that gathers a parameter's gradient
            raise InputError(
                "a sigmoid loss (binary cross-entropy or another multi-label loss) cannot train a cosine head: it has"
                " no bias, so a sigmoid cannot put its threshold anywhere but at 90 degrees, and kappa is defined by a"
                " softmax; use cross-entropy, in timm's train.py drop --bce-loss and --loss bce, or head='linear'"
            )
        pending.extend(parent for parent, _ in node.next_functions)
