"""tau-normalisation of a softmax classifier: frequent classes have long weights, rare ones short, and it evens them."""

import torch
from torch import Tensor, nn

from cosify.errors import InputError
from cosify.models import find_classifiers, find_heads


@torch.no_grad()
def tau_normalize(model: nn.Module, tau: float = 1.0) -> None:
    """Divide the weights of softmax classifiers by their norm to the power tau, and drop the bias, in place.

    Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020, Sec. 4.3.

    Args:
        model: classifier of timm or transformers with softmax heads.
        tau: from 0 (the weights stay) to 1 (all of norm 1); choose it on held-out images.

    Raises:
        ValueError: if the model has no classifier, or a cosine head, whose logits do not depend on the weights' norms.
    """
    layers = find_classifiers(model)
    if find_heads(model) or not layers:
        what = "a cosine head, whose logits do not depend on the norms of its weights" if layers else "no classifier"
        raise InputError(
            f"{type(model).__name__} has {what}, expected softmax heads; correct a cosine head by adjust_logits"
        )
    for layer in layers.values():
        weight: Tensor = layer.weight  # type: ignore[assignment]  # every classifier has one
        weight.copy_(tau_normalized(weight, tau))
        if isinstance(layer.bias, Tensor):
            layer.bias.zero_()


def tau_normalized(weight: Tensor, tau: float) -> Tensor:
    """Return weights [C, ...], each divided by its norm to the power tau; a zero weight stays.

    Raises:
        ValueError: if tau is below 0.
    """
    if not tau >= 0:
        raise InputError(f"tau is {tau}, expected a number from 0 on, such as 0.5 or 1")
    norm = weight.flatten(1).norm(dim=1)
    norm = torch.where(norm > 0, norm, 1.0)
    return weight / norm.pow(tau).view(-1, *[1] * (weight.ndim - 1))
