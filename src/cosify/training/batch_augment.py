"""Augmentation of a normalised batch on the device, after either pipeline: erasing, mixup, cutmix."""

from typing import Any

import torch
from torch import Tensor

from cosify.settings.training import RunArguments


class BatchAugment:
    """Random erasing, mixup and cutmix, all timm's.

    They draw from the global random generators, which the loop seeds at each step.

    Args:
        args: probabilities and strengths.
        num_classes: C.
        device: of the batches.
    """

    def __init__(self, args: RunArguments, num_classes: int, device: torch.device) -> None:
        from timm.data import Mixup
        from timm.data.random_erasing import RandomErasing

        self._erase: Any = None
        if args.random_erasing > 0:
            self._erase = RandomErasing(args.random_erasing, mode="pixel", device=device)
        self._mix: Any = None
        if args.mixup > 0 or args.cutmix > 0:
            self._mix = Mixup(args.mixup, args.cutmix, label_smoothing=args.label_smoothing, num_classes=num_classes)
        self._first_plain_epoch = args.epochs - args.mix_off_epochs

    def __call__(self, images: Tensor, labels: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Return images and targets: labels [B] as they are, or probabilities [B, C] where images were mixed.

        Args:
            images: [B, channels, H, W], normalised; may be written to.
            labels: [B].
            epoch: from 0 on.
        """
        if self._erase is not None:
            images = self._erase(images)
        if self._mix is not None and epoch < self._first_plain_epoch:
            images, labels = self._mix(images, labels)
        return images, labels
