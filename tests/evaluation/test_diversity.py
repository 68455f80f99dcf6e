"""Angles and ranks of features against plain loops and against spectra that are known by construction."""

import math
import re
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from torch import Tensor

from cosify.evaluation import rows as walker
from cosify.evaluation.diversity import (
    DEFAULT_RTOL,
    Diversity,
    class_angles_deg,
    feature_diversity,
    span_angles_deg,
    span_basis,
)


def samples(num: int = 60, dim: int = 8, num_classes: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(num, dim, generator=generator, dtype=torch.float64) + 0.3
    labels = torch.randint(num_classes, (num,), generator=generator)
    return embedding, labels, torch.randn(num_classes, dim, generator=generator, dtype=torch.float64)


def rotation(dim: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64)).Q


def design(amplitudes: list[float], dim: int, num: int = 64) -> Tensor:
    """Unit rows of mean 0 whose singular values are to each other as the amplitudes, in a space turned at random."""
    columns = torch.tensor(hadamard(num)[:, 1 : len(amplitudes) + 1], dtype=torch.float64)
    scaled = torch.tensor(amplitudes, dtype=torch.float64)
    rows = columns * scaled / scaled.norm()
    return torch.cat([rows, rows.new_zeros(num, dim - len(amplitudes))], dim=1) @ rotation(dim)


def basis_rows(multiplicities: list[int]) -> Tensor:
    """Repeated basis vectors: the singular values are the roots of the multiplicities."""
    return torch.eye(len(multiplicities)).repeat_interleave(torch.tensor(multiplicities), dim=0)


def close(first: Diversity, second: Diversity, **other: object) -> None:
    assert asdict(first) == pytest.approx({**asdict(second), **other}, rel=1e-9)


def oracle(embedding: Tensor, labels: Tensor, weight: Tensor, rtol: float) -> dict[str, float]:
    """Plain loops, an orthonormal basis by Gram-Schmidt, and full singular value decompositions."""
    unit = [[x / math.hypot(*row) for x in row] for row in embedding.tolist() if math.hypot(*row) > 0]
    kept = [label for row, label in zip(embedding.tolist(), labels.tolist(), strict=True) if math.hypot(*row) > 0]
    basis: list[list[float]] = []
    for row in weight.tolist():
        for b in basis:
            along = sum(p * q for p, q in zip(row, b, strict=True))
            row = [p - along * q for p, q in zip(row, b, strict=True)]
        basis.append([p / math.hypot(*row) for p in row])
    class_angles, span_angles = [], []
    for x, label in zip(unit, kept, strict=True):
        w = weight[label].tolist()
        class_angles.append(math.degrees(math.acos(sum(p * q for p, q in zip(x, w, strict=True)) / math.hypot(*w))))
        inside = math.hypot(*(sum(p * q for p, q in zip(x, b, strict=True)) for b in basis))
        span_angles.append(math.degrees(math.acos(inside)))
    rows = np.array(unit)
    values = np.linalg.svd(rows, compute_uv=False)
    centred = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
    share = centred / centred.sum()
    components, held = 0, 0.0
    while held < 0.99 * (centred**2).sum():
        held, components = held + centred[components] ** 2, components + 1
    return {
        "mean_class_angle_deg": sum(class_angles) / len(unit),
        "mean_span_angle_deg": sum(span_angles) / len(unit),
        "span_dim": len(basis),
        "numerical_rank": int((values > rtol * values[0]).sum()),
        "effective_rank": math.exp(-sum(p * math.log(p) for p in share if p > 0)),
        "num_pc_99": components,
        "rtol": rtol,
        "num_samples": len(embedding),
        "num_zero": len(embedding) - len(unit),
        "dim": embedding.shape[1],
    }


@pytest.mark.parametrize("rtol", [DEFAULT_RTOL, 0.7])
def test_equals_plain_loops(rtol: float) -> None:
    embedding, labels, weight = samples()
    embedding[7] = 0
    found = feature_diversity(embedding, labels, weight, rtol=rtol)
    assert asdict(found) == pytest.approx(oracle(embedding, labels, weight, rtol), rel=1e-9)
    assert rtol < 0.1 or found.numerical_rank < 8  # the tolerance bites


def test_rtol_is_numpys_for_50000_features_in_float32() -> None:
    assert 50_000 * float(np.finfo(np.float32).eps) == DEFAULT_RTOL
    embedding, _, weight = samples()
    assert feature_diversity(embedding, None, weight).rtol == DEFAULT_RTOL


@pytest.mark.parametrize(("most", "rank"), [(28_147, 3), (28_148, 2)])
def test_rank_turns_where_the_tolerance_says(most: int, rank: int) -> None:
    # s_3 / s_1 = 1 / sqrt(most), above or below 5.96e-3: 1 / 5.96e-3 ^ 2 = 28147.5.
    found = feature_diversity(basis_rows([most, 500, 1, 0]), None, torch.eye(4)[:1])
    assert found.numerical_rank == rank


@pytest.mark.parametrize(
    ("amplitudes", "rank", "components"),
    [
        ([1.0, 0.5, 0.25, 0.006, 0.00595, 1e-4], 4, 3),
        ([1.0, 1e-5], 1, 1),
        ([3.0], 1, 1),
        ([math.sqrt(99), 1.0], 2, 1),  # the first holds 99 % exactly
        ([math.sqrt(98), math.sqrt(2)], 2, 2),
    ],
)
def test_known_spectrum(amplitudes: list[float], rank: int, components: int) -> None:
    found = feature_diversity(design(amplitudes, dim=9), None, torch.eye(9)[:2])
    assert (found.numerical_rank, found.num_pc_99) == (rank, components)
    share = [value / sum(amplitudes) for value in amplitudes]
    entropy = -sum(p * math.log(p) for p in share)
    assert found.effective_rank == pytest.approx(math.exp(entropy), rel=1e-5)


@pytest.mark.parametrize("squares", [[99, 1], [33, 33, 33, 1], [50, 30, 19, 1], [60, 30, 9, 0.5, 0.5]])
def test_exactly_99_percent_are_enough_however_rounded(squares: list[float]) -> None:
    amplitudes = [math.sqrt(square) for square in squares]
    enough = 1 + [sum(squares[: k + 1]) for k in range(len(squares))].index(99)
    for dim in range(6, 25):
        assert feature_diversity(design(amplitudes, dim), None, torch.eye(dim)[:2]).num_pc_99 == enough


@pytest.mark.parametrize("r", [1, 4, 20])
def test_isotropic_subspace_has_its_dimension(r: int) -> None:
    exact = feature_diversity(design([1.0] * r, dim=40), None, torch.eye(40)[:3])
    assert exact.effective_rank == pytest.approx(r, rel=1e-6)
    assert (exact.numerical_rank, exact.num_pc_99) == (r, r)
    normal = torch.randn(4000, r, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = feature_diversity(normal @ rotation(40)[:r], None, torch.eye(40)[:3])
    assert drawn.effective_rank == pytest.approx(r, rel=2e-3)
    assert drawn.numerical_rank == r


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-3, 30.0, 60.0, 89.99999, 90.0])
def test_known_angle_to_the_span(angle: float) -> None:
    axes = rotation(10)
    weight = torch.tensor([[2.0, 1.0, 0.0], [0.1, 3.0, 1.0], [1.0, 1.0, 1.0], [5.0, 1.0, 0.0]]).double() @ axes[:3]
    x = 7 * (math.cos(math.radians(angle)) * axes[1] + math.sin(math.radians(angle)) * axes[6])
    assert span_basis(weight).shape == (10, 3)  # four classes, three directions
    assert float(span_angles_deg(x.unsqueeze(0), weight)) == pytest.approx(angle, rel=1e-7, abs=1e-13)
    found = feature_diversity(x.unsqueeze(0), None, weight)
    assert (found.span_dim, found.mean_class_angle_deg) == (3, None)
    assert found.mean_span_angle_deg == pytest.approx(angle, rel=1e-7, abs=1e-13)


def test_known_class_angles() -> None:
    weight = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.5, 0.0]])
    embedding = torch.tensor([[3.0, 0, 0], [-1e-20, 0, 0], [0, 0, 4], [1e18, 1e18, 0], [0, 0, 0]])
    angles = class_angles_deg(embedding, torch.tensor([0, 0, 1, 1, 0]), weight)
    torch.testing.assert_close(angles, torch.tensor([0, 180, 90, 45, torch.nan]).double(), equal_nan=True)
    assert class_angles_deg(embedding[:1], torch.tensor([1]), weight).item() == pytest.approx(90)  # the label decides


def test_zero_features_are_counted_and_left_out() -> None:
    embedding, labels, weight = samples()
    padded = torch.cat([torch.zeros(3, 8).double(), embedding])
    found = feature_diversity(padded, torch.cat([torch.zeros(3, dtype=torch.int64), labels]), weight)
    close(found, feature_diversity(embedding, labels, weight), num_zero=3, num_samples=63)
    assert span_angles_deg(padded, weight).isnan().tolist() == [True] * 3 + [False] * 60


def test_invariances() -> None:
    embedding, labels, weight = samples()
    expected = feature_diversity(embedding, labels, weight)
    turn = rotation(8, seed=3)
    close(feature_diversity(embedding @ turn, labels, weight @ turn), expected)
    factors = torch.logspace(-30, 30, 60, dtype=torch.float64).unsqueeze(1)
    close(feature_diversity(embedding * factors, labels, weight * factors[20:25]), expected)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(5))
    close(feature_diversity(embedding[order], labels[order], weight), expected)
    close(feature_diversity(embedding.repeat(3, 1), labels.repeat(3), weight), expected, num_samples=180)
    classes = torch.tensor([3, 1, 4, 0, 2])
    close(feature_diversity(embedding, classes.argsort()[labels], weight[classes]), expected)


@pytest.mark.parametrize("num", [2, 5, 30])
@pytest.mark.parametrize("seed", range(4))
def test_order_of_ranks(num: int, seed: int) -> None:
    embedding, labels, weight = samples(num=num, dim=12, seed=seed)
    found = feature_diversity(embedding, labels, weight)
    assert found.effective_rank is not None
    assert found.num_pc_99 is not None
    assert 1 - 1e-9 <= found.effective_rank <= found.numerical_rank + 1e-9
    assert 1 <= found.num_pc_99 <= found.numerical_rank <= min(num, 12)
    assert found.effective_rank <= num - 1 + 1e-9  # centred


def test_a_large_mean_hides_directions_from_the_numerical_rank_only() -> None:
    cone = torch.cat([torch.full((64, 1), 1.0).double(), 1e-4 * design([1.0] * 6, dim=6)], dim=1)
    found = feature_diversity(cone, None, torch.eye(7)[:2])
    assert found.numerical_rank == 1
    assert found.effective_rank == pytest.approx(6, rel=1e-4)


@pytest.mark.parametrize("num", [1, 30])
def test_one_direction_has_no_spread(num: int) -> None:
    x = torch.randn(8, generator=torch.Generator().manual_seed(0))
    found = feature_diversity(x * torch.rand(num, 1).add(0.1), None, torch.eye(8)[:2])
    assert (found.numerical_rank, found.effective_rank, found.num_pc_99) == (1, None, None)


def test_span_of_everything_has_no_angle() -> None:
    embedding, _, _ = samples(num_classes=8)
    for num_classes in (8, 20):
        weight = samples(num_classes=num_classes)[2]
        found = feature_diversity(embedding, None, weight)
        assert (found.mean_span_angle_deg, found.span_dim) == (None, 8)
        with pytest.warns(UserWarning, match=r"classifiers span all 8 dimensions, expected fewer"):
            assert span_angles_deg(embedding, weight).isnan().tolist() == [True] * 60


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_span_counts_directions_up_to_the_rounding_of_the_weight(dtype: torch.dtype) -> None:
    # Thirty classes in four of eight dimensions: more classes than dimensions, and still an angle.
    weight = (samples(num_classes=30, dim=4)[2] @ rotation(8)[:4]).to(dtype)
    assert span_basis(weight).shape == (8, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(span_angles_deg(rotation(8)[6:7], weight)) == pytest.approx(90, abs=1e-4)


def test_blocks_arrays_and_tensors_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding, labels, weight = samples(num=101)
    expected = feature_diversity(embedding, labels, weight)
    np.save(tmp_path / "rows.npy", embedding.numpy())
    np.save(tmp_path / "labels.npy", labels.numpy())
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    targets = np.load(tmp_path / "labels.npy", mmap_mode="r")
    angles = span_angles_deg(embedding, weight), class_angles_deg(embedding, labels, weight)
    for size in (1, 7, 100, 101):
        monkeypatch.setattr(walker, "AT_ONCE", size)
        close(feature_diversity(rows, targets, weight), expected)
        torch.testing.assert_close((span_angles_deg(rows, weight), class_angles_deg(rows, targets, weight)), angles)


def test_half_precision_rows_are_measured_in_float64() -> None:
    embedding, labels, weight = samples()
    half = embedding.half()
    close(feature_diversity(half, labels, weight), feature_diversity(half.double(), labels, weight))
    close(feature_diversity(half.numpy(), labels, weight), feature_diversity(half.double(), labels, weight))
    assert span_angles_deg(embedding.bfloat16(), weight).dtype == torch.float64


def test_arguments_stay_as_they_are() -> None:
    embedding, labels, weight = samples()
    copies = embedding.clone(), weight.clone().requires_grad_()
    feature_diversity(embedding, labels, copies[1])
    assert torch.equal(embedding, copies[0])
    assert torch.equal(weight, copies[1])


def test_errors() -> None:
    embedding, labels, weight = samples()
    broken = embedding.clone()
    broken[9, 2] = torch.nan
    cases: list[tuple[Tensor, Tensor, Tensor, type[Exception], str]] = [
        (embedding[:0], labels[:0], weight, ValueError, "embedding has shape [0, 8], expected [N, 8] as weight, N > 0"),
        (embedding[:, :5], labels, weight, ValueError, "embedding has shape [60, 5], expected [N, 8] as weight"),
        (embedding[:, 0], labels, weight, ValueError, "embedding has shape [60], expected [N, 8]"),
        (broken, labels, weight, ValueError, "embedding holds NaN or infinity, first in row 9"),
        (embedding * 0, labels, weight, ValueError, "all 60 features are 0, expected directions"),
        (embedding, labels[:-1], weight, ValueError, "labels have shape [59], expected [60]"),
        (embedding, labels + 1, weight, ValueError, "found 1 to 5, expected 0 to 4 for 5 classes"),
        (embedding, labels - 1, weight, ValueError, "found -1 to 3, expected 0 to 4 for 5 classes"),
        (embedding, labels.double(), weight, TypeError, "labels are torch.float64, expected integer class indices"),
        (embedding, labels, weight[0], ValueError, "weight is torch.float64 [8], expected floats [C, d]"),
        (embedding, labels, weight[:0], ValueError, "weight is torch.float64 [0, 8], expected floats [C, d]"),
        (embedding, labels, weight * torch.tensor([1, 0, 1, 0, 1]).unsqueeze(1), ValueError, "weight has 2 of 5 rows"),
        (embedding, labels, weight / 0, ValueError, "weight has 5 of 5 rows with NaN, infinity or only 0"),
    ]
    for rows, targets, classifiers, error, text in cases:
        with pytest.raises(error, match=re.escape(text)):
            feature_diversity(rows, targets, classifiers)
    for rtol in (1e-7, 0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match=rf"rtol is {rtol}, expected 1e-06 to 1"):
            feature_diversity(embedding, labels, weight, rtol=rtol)
