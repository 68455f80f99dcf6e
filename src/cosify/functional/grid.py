"""The candidate set of Eq. (14) and the closed forms that start or replace a search."""

import math

import torch
from torch import Tensor

from cosify.functional.checks import check_grid, check_num_classes
from cosify.functional.float64 import float64_device

# Where LS ends, as a multiple of the closed form at cosine 0.75: 1.0 to 1.5 in the paper's Tables 2, 6 and 7 for 10 to
# 93431 classes, 1.0 to 1.3 in our own runs.
TYPICAL = 1.2


def kappa_grid(low: float = -2.0, high: float = 5.0, num: int = 20, *, device: torch.device | None = None) -> Tensor:
    """Return log-spaced candidates for kappa.

    Kobayashi, Eq. (14): 20 values on [e^-2, e^5], a ratio of 1.4455 between neighbours.

    Args:
        low: log of the smallest candidate.
        high: log of the largest candidate, above `low`.
        num: how many, at least 1.
        device: where the grid lies.

    Returns:
        [K] float32, strictly increasing.

    Raises:
        ValueError: if the candidates are not finite and increasing.
    """
    # float32 holds e^-87 to e^88, and tells neighbours of one part in a million apart.
    if num < 1 or not -87 < low < 88 or not -87 < high < 88 or (num > 1 and (high - low) / (num - 1) < 1e-6):
        raise ValueError(
            f"grid of {num} values from e^{low} to e^{high} is not increasing; expected num >= 1 and"
            " -87 < low < high < 88"
        )
    device = torch.get_default_device() if device is None else torch.device(device)
    place = float64_device(device)
    grid = torch.linspace(low, high, num, dtype=torch.float64, device=place).exp().float()
    return grid if place == device else grid.to(device)


def grid_or_default(grid: Tensor | None, device: torch.device) -> Tensor:
    """Return the caller's grid, checked and moved, or the paper's."""
    if grid is None:
        return kappa_grid(device=device)
    check_grid(grid)
    return grid.to(device)


def adacos_kappa(num_classes: int) -> float:
    """Return the fixed scale of AdaCos, sqrt(2) log(C - 1).

    Zhang et al., AdaCos, CVPR 2019, Eq. (12).  A baseline; it is 0 for two classes.

    Raises:
        ValueError: for fewer than two classes.
    """
    check_num_classes(num_classes)
    return math.sqrt(2.0) * math.log(num_classes - 1)


def expected_kappa(num_classes: int, target_cosine: float = 0.75) -> float:
    """Return the kappa of Eq. (11) for orthogonal classifiers and a feature at `target_cosine` from its own.

    Closed form of Kobayashi's Eq. (11): log(1 + C c / (1 - c)) / c.  Trained models end near its least value over c,
    and at c = 0.75 it lies at most 13 % above that for 10 to a million classes; so it serves as kappa before the first
    batch.

    Args:
        num_classes: C, at least 2.
        target_cosine: c in (0, 1).

    Raises:
        ValueError: for fewer than two classes, or a cosine outside of (0, 1).
    """
    check_num_classes(num_classes)
    if not 0 < target_cosine < 1:
        raise ValueError(f"target_cosine is {target_cosine}, expected a cosine between 0 and 1, such as 0.75")
    return math.log1p(num_classes * target_cosine / (1.0 - target_cosine)) / target_cosine


def least_kappa(num_classes: int) -> float:
    """Return the least value of `expected_kappa` over c: 7.5 at C = 100, 10.1 at 1000, 15.1 at 93,431.

    The kappa* of trained networks lies little above it.
    """
    return min(expected_kappa(num_classes, step / 1000) for step in range(1, 1000))
