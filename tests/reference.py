"""Plain-loop float64 versions of the paper's equations, written from the paper and importing nothing from cosify."""

import math
from collections.abc import Sequence

import mpmath
import numpy as np

Matrix = np.ndarray


def unit(vector: Sequence[float]) -> list[float]:
    norm = math.sqrt(sum(v * v for v in vector))
    return [v / norm if norm > 0 else 0.0 for v in vector]


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(p * q for p, q in zip(a, b, strict=True))


def cosine(embedding: Matrix, weight: Matrix) -> Matrix:
    """Eq. (1)."""
    return np.array([[dot(unit(x), unit(w)) for w in weight.tolist()] for x in embedding.tolist()])


def grid() -> list[float]:
    """Eq. (14)."""
    return [math.exp(-2 + 7 * k / 19) for k in range(20)]


def softmax(logits: Sequence[float]) -> list[float]:
    top = max(logits)
    powers = [math.exp(v - top) for v in logits]
    return [p / sum(powers) for p in powers]


def ls_energy(x: Sequence[float], weight: Matrix, kappa: float) -> float:
    """Eq. (10)."""
    x, prototypes = unit(x), [unit(w) for w in weight.tolist()]
    alpha = softmax([kappa * dot(x, w) for w in prototypes])
    average = [sum(a * w[i] for a, w in zip(alpha, prototypes, strict=True)) for i in range(len(x))]
    return 0.5 * sum((a - b) ** 2 for a, b in zip(x, average, strict=True))


def ls_kappa(embedding: Matrix, weight: Matrix, candidates: Sequence[float]) -> tuple[list[int], list[float]]:
    """Eq. (11): the index of the least energy, and how far the second lies above it."""
    indices, gaps = [], []
    for x in embedding.tolist():
        energies = [ls_energy(x, weight, kappa) for kappa in candidates]
        order = sorted(range(len(energies)), key=energies.__getitem__)
        indices.append(order[0])
        gaps.append(energies[order[1]] - energies[order[0]] if len(order) > 1 else math.inf)
    return indices, gaps


def ls_energies(embedding: Matrix, weight: Matrix, candidates: Sequence[float]) -> Matrix:
    """Eq. (10) at every candidate, [K, B]: `ls_energy` in numpy, for problems that loops take too long for."""

    def unit_rows(rows: Matrix) -> Matrix:
        rows = rows.astype(np.float64)
        norm = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.divide(rows, norm, out=np.zeros_like(rows), where=norm > 0)

    x, prototypes = unit_rows(embedding), unit_rows(weight)
    z = x @ prototypes.T
    energies = []
    for kappa in candidates:
        powers = np.exp(kappa * (z - z.max(axis=1, keepdims=True)))
        average = (powers / powers.sum(axis=1, keepdims=True)) @ prototypes
        energies.append(0.5 * ((x - average) ** 2).sum(axis=1))
    return np.array(energies)


def rule_kappa(weight: Matrix) -> float:
    """Eq. (4)."""
    prototypes = [unit(w) for w in weight.tolist()]
    d = len(prototypes[0])
    mean = [sum(w[i] for w in prototypes) / len(prototypes) for i in range(d)]
    r = math.sqrt(dot(mean, mean))
    return r * (d - r * r) / (1 - r * r)


def log_vmf_normaliser(kappa: float, d: int) -> float:
    """log 0F1(; d/2; kappa^2 / 4), the exact log Z of Eq. (3) up to its constant in kappa."""
    return float(mpmath.log(mpmath.hyp0f1(mpmath.mpf(d) / 2, mpmath.mpf(kappa) ** 2 / 4)))


def ml_energy(x: Sequence[float], weight: Matrix, kappa: float, log_normaliser: float) -> float:
    """Eq. (5)."""
    exponents = [kappa * dot(unit(x), unit(w)) for w in weight.tolist()]
    top = max(exponents)
    return log_normaliser - top - math.log(sum(math.exp(e - top) for e in exponents) / len(exponents))


def cosine_softmax_loss(
    embedding: Matrix, weight: Matrix, targets: Matrix, kappa: Sequence[float], margin: float = 0.0
) -> float:
    """Eq. (2) with the CosFace margin, for soft targets [B, C]."""
    total = 0.0
    for z, target, k in zip(cosine(embedding, weight).tolist(), targets.tolist(), kappa, strict=True):
        logits = [k * (value - margin * t) for value, t in zip(z, target, strict=True)]
        total -= sum(t * math.log(p) for t, p in zip(target, softmax(logits), strict=True) if t > 0)
    return total / len(embedding)


def simplified_loss(target_cosine: float, num_classes: int, kappa: float) -> float:
    """Eq. (15)."""
    return -kappa * target_cosine + math.log(math.exp(kappa * target_cosine) + num_classes - 1)


def equicorrelated_kappa(target_cosine: float, num_classes: int, correlation: float) -> float:
    """Closed form of Eq. (11) for prototypes at one common cosine and a feature seen by one of them only."""
    odds = num_classes * target_cosine / (1 - target_cosine)
    return math.log(1 + odds) / (target_cosine * (1 - correlation))
