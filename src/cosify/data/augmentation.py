"""Augmentation of whole batches on the device they lie on."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cosify.data.batches import ALONE, Shard

Augmentation = Literal["crop-flip", "crop", "flip", "none"]


def random_crop(images: Tensor, padding: int, generator: torch.Generator, shard: Shard = ALONE) -> Tensor:
    """Shift each image by up to `padding` pixels both ways; what comes in at the border is 0 (black).

    Args:
        images: [B, channels, H, W].
        padding: largest shift, pixels.
        generator: on the device of `images`, in the same state on every rank.
        shard: which part of the batch of all ranks these images are.

    Returns:
        Images of the same shape and dtype.
    """
    B, channels, H, W = images.shape
    padded = F.pad(images, (padding,) * 4)
    everyone = (2, B * shard.world_size, 1)
    shifts = torch.randint(2 * padding + 1, everyone, generator=generator, device=images.device)[:, _own(B, shard)]
    rows = shifts[0] + torch.arange(H, device=images.device)
    columns = shifts[1] + torch.arange(W, device=images.device)
    # One gather on flat pixels; indexing with three index tensors is several times slower on the CPU.
    index = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    flat = padded.flatten(2)
    return flat.gather(2, index.reshape(B, 1, H * W).expand(B, channels, H * W)).reshape(images.shape)


def random_flip(images: Tensor, generator: torch.Generator, shard: Shard = ALONE) -> Tensor:
    """Mirror each image left to right with probability one half.

    Args:
        images: [B, channels, H, W].
        generator: on the device of `images`, in the same state on every rank.
        shard: which part of the batch of all ranks these images are.
    """
    B = len(images)
    flip = torch.rand(B * shard.world_size, generator=generator, device=images.device)[_own(B, shard)] < 0.5
    return torch.where(flip[:, None, None, None], images.flip(3), images)


def augment(images: Tensor, augmentation: Augmentation, seed: int, shard: Shard = ALONE) -> Tensor:
    """Augment a batch.

    Choices are drawn for the batch of all ranks together, from the seed of the batch.  So two ranks do what one would,
    and a resumed run what an uninterrupted one would.

    Args:
        images: [B, channels, H, W]; they shift by up to an eighth of their side, the usual 4 pixels for 32.
        augmentation: `"crop-flip"`, `"crop"` for things that have a left and a right, such as digits, `"flip"` for what
            is aligned, such as faces, or `"none"`.
        seed: of this batch.
        shard: which part of the batch of all ranks these images are.
    """
    if augmentation == "none":
        return images
    generator = torch.Generator(images.device).manual_seed(seed)
    if "crop" in augmentation:
        images = random_crop(images, max(1, min(images.shape[-2:]) // 8), generator, shard)
    return random_flip(images, generator, shard) if "flip" in augmentation else images


def _own(num_rows: int, shard: Shard) -> slice:
    return slice(shard.rank * num_rows, (shard.rank + 1) * num_rows)
