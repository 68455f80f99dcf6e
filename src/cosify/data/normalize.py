"""From uint8 pixels to the numbers that a network is fed.

One rule: a network that starts from pretrained weights gets the mean and standard deviation that belong to them; one
that starts from scratch gets those of its training images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

AT_ONCE = 1 << 22  # pixels whose squares are held: 16 MB
SMALLEST_STD = 1 / 255  # one grey level: a channel without contrast must not divide by zero


@dataclass(frozen=True)
class Normalization:
    """Subtract `mean`, divide by `std`, one number a channel, for pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of_images(cls, images: Tensor) -> "Normalization":
        """Return mean and standard deviation of uint8 images [N, channels, H, W]."""
        count = images.numel() // images.shape[1]
        total = torch.zeros(images.shape[1], dtype=torch.float64)
        squares = torch.zeros_like(total)
        for chunk in images.split(max(1, AT_ONCE // images[0].numel())):  # sums of integers: the same for any chunks
            pixels = chunk.to(torch.int32)
            total += pixels.sum(dim=(0, 2, 3)).cpu()
            squares += pixels.square().sum(dim=(0, 2, 3)).cpu()
        mean = total / count
        std = (squares / count - mean.square()).clamp_min(0).sqrt()
        return cls(tuple((mean / 255).tolist()), tuple((std / 255).clamp_min(SMALLEST_STD).tolist()))

    @classmethod
    def of_pretrained(cls, mean: Sequence[float], std: Sequence[float], channels: int) -> "Normalization":
        """Return what pretrained weights expect, for images of `channels` channels.

        timm feeds a grey image to all colour filters at once, so grey images get the average of the colours' numbers.
        """
        if len(mean) == channels:
            return cls(tuple(mean), tuple(std))
        return cls((sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels)

    def on(self, device: torch.device) -> "Normalizer":
        """Return the callable with its numbers on `device`."""
        return Normalizer(self, device)


class Normalizer:
    """Map uint8 images [B, channels, H, W] to float32 of about zero mean and unit variance."""

    def __init__(self, normalization: Normalization, device: torch.device) -> None:
        mean = torch.tensor(normalization.mean, device=device).reshape(-1, 1, 1)
        std = torch.tensor(normalization.std, device=device).reshape(-1, 1, 1)
        self._factor, self._offset = 1 / (255 * std), -mean / std

    def __call__(self, images: Tensor) -> Tensor:
        """Return the normalised images, [B, channels, H, W]."""
        return images.float() * self._factor + self._offset
