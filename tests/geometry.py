"""Small named problems (embedding, weight) on which estimators and losses are compared with the reference."""

import torch
from torch import Tensor


def random(num_rows: int, num_classes: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(num_rows, dim, generator=generator),
        torch.randn(num_classes, dim, generator=generator),
    )


def planted(num_rows: int, num_classes: int, dim: int, angle_deg: float, seed: int) -> tuple[Tensor, Tensor]:
    noise, weight = random(num_rows, num_classes, dim, seed)
    own = torch.nn.functional.normalize(weight[torch.arange(num_rows) % num_classes], dim=1)
    return 7 * at_angle(torch.deg2rad(torch.tensor(angle_deg)), own, noise), weight


def at_angle(angle: Tensor, own: Tensor, noise: Tensor) -> Tensor:
    """Return rows at that angle to the unit rows `own`, each in the plane of its noise."""
    noise = noise - (noise * own).sum(1, keepdim=True) * own
    return angle.cos() * own + angle.sin() * torch.nn.functional.normalize(noise, dim=1)


def clustered(
    num_rows: int, num_classes: int, dim: int, seed: int, cosine: float = 0.86, size: int = 5
) -> tuple[Tensor, Tensor]:
    """Classes in clusters of some cosine, features at 45 degrees: tight ones give energies with two minima."""
    embedding, weight = random(num_rows, num_classes, dim, seed)
    centres = torch.randn(-(-num_classes // size), dim, generator=torch.Generator().manual_seed(seed + 1))
    weight = centres.repeat_interleave(size, dim=0)[:num_classes] + (1 / cosine - 1) ** 0.5 * weight
    own = torch.nn.functional.normalize(weight[torch.arange(num_rows) % num_classes], dim=1)
    return own + torch.nn.functional.normalize(embedding, dim=1), weight


def cone(num_rows: int, num_classes: int, dim: int, seed: int, cosine: float = 0.6) -> tuple[Tensor, Tensor]:
    """Classes around one direction, at that cosine; features at 20 to 70 degrees from the first of them."""
    noise, weight = (torch.nn.functional.normalize(rows, dim=1) for rows in random(num_rows, num_classes, dim, seed))
    axis = torch.nn.functional.normalize(torch.ones(dim), dim=0)
    weight = cosine * axis + (1 - cosine**2) ** 0.5 * weight
    own = torch.nn.functional.normalize(weight[:num_rows], dim=1)
    return at_angle(torch.deg2rad(torch.linspace(20, 70, num_rows)).unsqueeze(1), own, noise), weight


def problems() -> dict[str, tuple[Tensor, Tensor]]:
    embedding, weight = random(6, 8, 5, seed=1)
    zero_embedding, zero_weight = embedding.clone(), weight.clone()
    zero_embedding[2] = 0
    zero_weight[3] = 0
    return {
        "random": (embedding, weight),
        "two classes": (embedding, weight[:2]),
        "two dimensions": random(7, 4, 2, seed=2),
        "high dimension": random(3, 30, 200, seed=3),
        "planted 20 deg": planted(8, 10, 32, 20.0, seed=4),
        "planted 60 deg": planted(8, 10, 32, 60.0, seed=5),
        "clusters": clustered(10, 20, 24, seed=6),
        "duplicated weights": (embedding, weight[[0, 0, 1, 1, 2, 2, 2]]),
        "x on a prototype": (3 * weight[:5], weight),
        "zero embedding row": (zero_embedding, weight),
        "zero weight row": (embedding, zero_weight),
        "one sample": (embedding[:1], weight),
    }
