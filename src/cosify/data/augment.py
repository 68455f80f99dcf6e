"""Augmentation of whole batches on the device they lie on."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Augmentation = Literal["crop-flip", "crop", "none"]


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Shift each image by up to `padding` pixels both ways; what comes in at the border is 0 (black).

    Args:
        images: [B, channels, H, W].
        padding: largest shift, pixels.
        generator: on the device of `images`.

    Returns:
        Images of the same shape and dtype.
    """
    B, channels, H, W = images.shape
    padded = F.pad(images, (padding,) * 4)
    shifts = torch.randint(2 * padding + 1, (2, B, 1), generator=generator, device=images.device)
    rows = shifts[0] + torch.arange(H, device=images.device)
    columns = shifts[1] + torch.arange(W, device=images.device)
    # One gather on flat pixels; indexing with three index tensors is several times slower on the CPU.
    index = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    flat = padded.flatten(2)
    return flat.gather(2, index.reshape(B, 1, H * W).expand(B, channels, H * W)).reshape(images.shape)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability one half.

    Args:
        images: [B, channels, H, W].
        generator: on the device of `images`.
    """
    flip = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(flip[:, None, None, None], images.flip(3), images)


def augmenter(augmentation: Augmentation, side: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Return the function that augments a batch.

    Args:
        augmentation: `"crop-flip"`, `"crop"` for things that have a left and a right, such as digits, or `"none"`.
        side: of the images, pixels; they shift by up to an eighth of it, the usual 4 pixels for 32.
        generator: source of all choices.
    """
    padding = max(1, side // 8)

    def augment(images: Tensor) -> Tensor:
        if augmentation == "none":
            return images
        images = random_crop(images, padding, generator)
        return random_flip(images, generator) if augmentation == "crop-flip" else images

    return augment
