"""Small named problems (embedding, weight) on which estimators and losses are compared with the reference."""

import torch
from torch import Tensor


def _random(num_rows: int, num_classes: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(num_rows, dim, generator=generator),
        torch.randn(num_classes, dim, generator=generator),
    )


def _planted(num_rows: int, num_classes: int, dim: int, angle_deg: float, seed: int) -> tuple[Tensor, Tensor]:
    noise, weight = _random(num_rows, num_classes, dim, seed)
    own = torch.nn.functional.normalize(weight[torch.arange(num_rows) % num_classes], dim=1)
    noise = noise - (noise * own).sum(1, keepdim=True) * own
    angle = torch.deg2rad(torch.tensor(angle_deg))
    return 7 * (angle.cos() * own + angle.sin() * torch.nn.functional.normalize(noise, dim=1)), weight


def _clustered(num_rows: int, num_classes: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """Classes in tight clusters of five (cosine about 0.86), features at 45 degrees: energies with two minima."""
    embedding, weight = _random(num_rows, num_classes, dim, seed)
    centres = torch.randn(num_classes // 5, dim, generator=torch.Generator().manual_seed(seed + 1))
    weight = centres.repeat_interleave(5, dim=0) + 0.4 * weight
    own = torch.nn.functional.normalize(weight[torch.arange(num_rows) % num_classes], dim=1)
    return own + torch.nn.functional.normalize(embedding, dim=1), weight


def problems() -> dict[str, tuple[Tensor, Tensor]]:
    embedding, weight = _random(6, 8, 5, seed=1)
    zero_embedding, zero_weight = embedding.clone(), weight.clone()
    zero_embedding[2] = 0
    zero_weight[3] = 0
    return {
        "random": (embedding, weight),
        "two classes": (embedding, weight[:2]),
        "two dimensions": _random(7, 4, 2, seed=2),
        "high dimension": _random(3, 30, 200, seed=3),
        "planted 20 deg": _planted(8, 10, 32, 20.0, seed=4),
        "planted 60 deg": _planted(8, 10, 32, 60.0, seed=5),
        "clusters": _clustered(10, 20, 24, seed=6),
        "duplicated weights": (embedding, weight[[0, 0, 1, 1, 2, 2, 2]]),
        "x on a prototype": (3 * weight[:5], weight),
        "zero embedding row": (zero_embedding, weight),
        "zero weight row": (embedding, zero_weight),
        "one sample": (embedding[:1], weight),
    }
