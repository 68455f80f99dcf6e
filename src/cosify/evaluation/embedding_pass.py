"""The features of a frozen network over a split."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cosify.errors import InputError


@torch.no_grad()
def embeddings(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return what a network without a classifier gives, and the labels, on the CPU.

    Args:
        model: built or reset with `num_classes=0`; its mode is restored.
        batches: normalised images [B, channels, H, W] and labels [B], on the network's device.

    Returns:
        Embeddings [N, d], float32, and labels [N].

    Raises:
        ValueError: if there are no batches, or the network gives something other than a vector for each image.
    """
    was_training = model.training
    model.eval()
    try:
        found = [(model(images), labels) for images, labels in batches]
    finally:
        model.train(was_training)
    if not found or found[0][0].ndim != 2:
        shape = "no batch" if not found else f"outputs of shape {list(found[0][0].shape)}"
        raise InputError(f"{shape} came, expected embeddings [B, d]; call model.reset_classifier(0) first")
    return torch.cat([rows.float().cpu() for rows, _ in found]), torch.cat([labels.cpu() for _, labels in found])
