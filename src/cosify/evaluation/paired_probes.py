"""Linear probes on few images of a class, and how two backbones differ in them, paired by fit and by image.

The images of a class follow each other and are dealt to folds.  Each fold fits a probe, which all other images test.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cosify.errors import InputError

# num_classes; top1: accuracy of each fit; right: how many fits answer an image right, a hexadecimal digit each.
Probed = Mapping[str, Any]


def folds(num_images: int, num_classes: int, per_class: int) -> Tensor:
    """Return the fold of each image, [N]; what fills no fold of `per_class` images of each class is in -1."""
    each = num_images // num_classes
    fold = torch.arange(num_images) % each // per_class
    return torch.where(fold < each // per_class, fold, -1)


def probe_difference(ours: Sequence[Probed], first: Sequence[Probed], per_class: int) -> tuple[float, float]:
    """Return how much more one backbone has right than another, and the standard error, as shares.

    Args:
        ours: probes of a backbone, for each seed of its training.
        first: those of the other one.
        per_class: images of a class in a fold.

    Returns:
        The mean, and the root of the variance of the mean over fits plus that over images, plus those over seeds.
        With one seed it does not say how much another training would differ.

    Raises:
        ValueError: if there are fewer than two fits.
    """
    top1 = [torch.tensor([run["top1"] for run in runs]).double() for runs in (ours, first)]
    by_fit = top1[0].mean(dim=0) - top1[1].mean(dim=0)
    num_fits = len(by_fit)
    if num_fits < 2:
        raise InputError(f"{num_fits} fits came, expected two or more, for a standard error; use more images")
    fold = folds(len(ours[0]["right"]), ours[0]["num_classes"], per_class)
    tested = num_fits - ((fold >= 0) & (fold < num_fits)).double()
    right = [torch.tensor([[int(digit, 16) for digit in run["right"]] for run in runs]) for runs in (ours, first)]
    by_image = (right[0].double().mean(dim=0) - right[1].double().mean(dim=0)) / tested
    seeds = sum(float(each.mean(dim=1).var()) / len(each) for each in top1 if len(each) > 1)
    error = (by_fit.var() / num_fits + by_image.var() / len(by_image) + seeds).sqrt()
    return float(by_fit.mean()), float(error)
