"""Mahalanobis distances against scikit-learn and plain loops, on features that make careless algebra fail."""

import math
import re
import resource
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.covariance import EmpiricalCovariance
from torch import Tensor

from cosify.evaluation import TiedGaussian
from tests.processes import run_python

Floats = NDArray[np.float64]


def clouds(
    num: int = 400, num_classes: int = 4, dim: int = 6, shift: float = 0.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Correlated normal distributions, float64; centres and correlation are the same for every seed."""
    fixed, generator = torch.Generator().manual_seed(99), torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(num_classes, dim, generator=fixed, dtype=torch.float64)
    mixing = torch.randn(dim, dim, generator=fixed, dtype=torch.float64)
    labels = torch.randint(num_classes, (num,), generator=generator)
    noise = torch.randn(num, dim, generator=generator, dtype=torch.float64)
    return centres[labels] + noise @ mixing + shift, labels


def by_sklearn(embedding: Tensor, labels: Tensor, queries: Tensor) -> Floats:
    """Return D^2 to the nearest mean, by one fit for all and a call for each class."""
    x, y, q = embedding.double().numpy(), labels.numpy(), queries.double().numpy()
    means = {c: x[y == c].mean(axis=0) for c in np.unique(y)}
    centred = np.stack([row - means[c] for row, c in zip(x, y, strict=True)])
    covariance = EmpiricalCovariance(assume_centered=True).fit(centred)
    return np.asarray(np.min([covariance.mahalanobis(q - mean) for mean in means.values()], axis=0))


def test_equals_sklearn() -> None:
    (x, y), (queries, _) = clouds(), clouds(100, seed=1)
    queries = torch.cat([queries, 50 * queries[:5]])
    found = TiedGaussian.fit(x, y, ridge=0).squared_distance(queries)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), by_sklearn(x, y, queries), rtol=1e-8)


def test_equals_plain_loops_with_ridge() -> None:
    (x, y), (queries, _) = clouds(90, dim=3), clouds(20, dim=3, seed=1)
    ridge = 0.3
    means = [sum(row for row, c in zip(x, y, strict=True) if c == k) / int((y == k).sum()) for k in range(4)]
    covariance = torch.zeros(3, 3, dtype=torch.float64)
    for row, c in zip(x, y, strict=True):
        covariance += torch.outer(row - means[c], row - means[c]) / 90
    covariance += ridge * torch.eye(3, dtype=torch.float64) * covariance.trace() / 3
    inverse = torch.linalg.inv(covariance)
    expected = [min(float((q - mean) @ inverse @ (q - mean)) for mean in means) for q in queries]
    gaussian = TiedGaussian.fit(x, y, ridge=ridge)
    torch.testing.assert_close(gaussian.factor @ gaussian.factor.T, covariance)
    assert gaussian.squared_distance(queries).tolist() == pytest.approx(expected, rel=1e-10)


def test_known_distances() -> None:
    # Two classes at (0, 0) and (10, 0); deviations 1 and 2.
    corners = torch.tensor([[1.0, 2.0], [1.0, -2.0], [-1.0, 2.0], [-1.0, -2.0]])
    x = torch.cat([corners, corners + torch.tensor([10.0, 0.0])])
    gaussian = TiedGaussian.fit(x, torch.arange(8) // 4, ridge=0)
    torch.testing.assert_close(gaussian.means, torch.tensor([[0.0, 0.0], [10.0, 0.0]]).double())
    torch.testing.assert_close(gaussian.factor, torch.tensor([[1.0, 0.0], [0.0, 2.0]]).double())
    queries = torch.tensor([[0.0, 0.0], [10.0, 6.0], [5.0, 0.0], [12.0, 2.0], [-3.0, -4.0]])
    torch.testing.assert_close(gaussian.squared_distance(queries), torch.tensor([0.0, 9.0, 25.0, 5.0, 13.0]).double())


def test_linear_maps_change_nothing() -> None:
    (x, y), (queries, _) = clouds(), clouds(50, seed=1)
    mixing = torch.randn(6, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    plain = TiedGaussian.fit(x, y, ridge=0).squared_distance(queries)
    mapped = TiedGaussian.fit(x @ mixing + 5, y, ridge=0).squared_distance(queries @ mixing + 5)
    torch.testing.assert_close(mapped, plain, rtol=1e-8, atol=1e-8)


def test_names_of_classes_and_the_order_of_samples_do_not_matter() -> None:
    (x, y), (queries, _) = clouds(), clouds(50, seed=1)
    plain = TiedGaussian.fit(x, y).squared_distance(queries)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    renamed = torch.tensor([7, 0, 900, 3])[y]  # and of these, most do not occur
    other = TiedGaussian.fit(x[order], renamed[order])
    assert other.means.shape == (4, 6)
    torch.testing.assert_close(other.squared_distance(queries), plain, rtol=1e-10, atol=0)


def test_a_class_that_does_not_occur_attracts_nothing() -> None:
    x, y = clouds(shift=100.0)
    gaussian = TiedGaussian.fit(x[y != 2], y[y != 2])
    assert gaussian.means.shape == (3, 6)
    assert float(gaussian.squared_distance(torch.zeros(1, 6))) > 100, "a mean of zeros would be at the origin"


def test_unit_is_normalising_first() -> None:
    (x, y), (queries, _) = clouds(), clouds(50, seed=1)
    unit = TiedGaussian.fit(x, y, unit=True)
    first = TiedGaussian.fit(F.normalize(x, dim=1), y)
    expected = first.squared_distance(F.normalize(queries, dim=1))
    torch.testing.assert_close(unit.squared_distance(queries), expected, rtol=1e-8, atol=0)
    torch.testing.assert_close(unit.squared_distance(7 * queries), expected, rtol=1e-6, atol=0)
    assert not torch.allclose(TiedGaussian.fit(x, y).squared_distance(queries), expected, rtol=0.1)


def test_relu_features_of_low_rank_need_the_ridge() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (300,), generator=generator)
    x = torch.rand(300, 4, generator=generator) @ torch.rand(4, 32, generator=generator) + labels.unsqueeze(1)
    x[:, ::3] = 0  # units that never fire
    with pytest.raises(
        ValueError,
        match=r"the covariance of 300 features of 32 dimensions is singular with ridge 0, expected features that vary"
        r" in every dimension; use more training samples or a larger ridge",
    ):
        TiedGaussian.fit(x, labels, ridge=0)
    gaussian = TiedGaussian.fit(x, labels)
    inside, outside = x.clone(), x.clone()
    outside[:, 0] += 1.0  # where no training feature varies
    assert float(gaussian.squared_distance(inside).max()) < 100
    assert float(gaussian.squared_distance(outside).min()) > 1e4


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", ["sum of others", "sum zero", "twins", "too few"])
def test_rounding_does_not_hide_a_singular_covariance(kind: str, seed: int) -> None:
    # One rank too few: the last pivot of Cholesky's algorithm is a rounding error, of either sign.
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(300, 24, generator=generator, dtype=torch.float64), torch.arange(300) % 4
    if kind == "sum of others":
        x[:, -1] = x[:, :-1].sum(dim=1)
    elif kind == "sum zero":
        x -= x.mean(dim=1, keepdim=True)
    elif kind == "twins":
        x[:, 5] = 3 * x[:, 17]
    else:
        x, y = x[:27], y[:27]  # 23 degrees of freedom
    with pytest.raises(ValueError, match="is singular with ridge 0, expected features that vary in every dimension"):
        TiedGaussian.fit(x, y, ridge=0)
    assert bool(TiedGaussian.fit(x, y).squared_distance(x).isfinite().all())


def test_dimensions_of_very_unlike_scales_are_not_singular() -> None:
    (x, y), (queries, _) = clouds(), clouds(50, seed=1)
    scale = torch.tensor([1e-6, 1.0, 1e6, 1e-3, 1e3, 1.0], dtype=torch.float64)
    plain = TiedGaussian.fit(x, y, ridge=0).squared_distance(queries)
    scaled = TiedGaussian.fit(x * scale, y, ridge=0).squared_distance(queries * scale)
    torch.testing.assert_close(scaled, plain, rtol=1e-8, atol=0)


@pytest.mark.parametrize("kind", ["one", "equal"])
def test_no_variance_at_all(kind: str) -> None:
    x = torch.ones(1, 3) if kind == "one" else torch.ones(10, 3)
    with pytest.raises(
        ValueError, match=rf"the covariance of {len(x)} features of 3 dimensions is singular with ridge"
    ):
        TiedGaussian.fit(x, torch.zeros(len(x), dtype=torch.int64))


def test_a_far_away_origin_does_not_cancel() -> None:
    (x, y), (queries, _) = clouds(), clouds(100, seed=1)
    near = TiedGaussian.fit(x, y, ridge=0).squared_distance(queries)
    far = TiedGaussian.fit(x + 1e4, y, ridge=0).squared_distance(queries + 1e4)
    torch.testing.assert_close(far, near, rtol=1e-7, atol=0)


def test_collapsed_classes_far_apart_do_not_cancel() -> None:
    # Deviations of a millionth of the distance between classes, as neural collapse brings about.
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (200,), generator=generator)
    centres = 1e6 * torch.randn(4, 6, generator=generator, dtype=torch.float64)
    noise = torch.randn(200, 6, generator=generator, dtype=torch.float64)
    x = centres[labels] + noise
    found = TiedGaussian.fit(x, labels, ridge=0).squared_distance(x)
    np.testing.assert_allclose(found.numpy(), by_sklearn(x, labels, x), rtol=1e-8)


def test_distance_at_a_mean_is_zero() -> None:
    gaussian = TiedGaussian.fit(*clouds(shift=1e3))
    found = gaussian.squared_distance(gaussian.means)
    assert float(found.min()) >= 0
    assert float(found.max()) < 1e-18


def test_blocks_are_the_whole() -> None:
    (x, y), (queries, _) = clouds(9000), clouds(9001, seed=1)
    gaussian = TiedGaussian.fit(x, y, ridge=0)
    assert gaussian.squared_distance(queries).shape == (9001,)
    np.testing.assert_allclose(gaussian.squared_distance(queries).numpy(), by_sklearn(x, y, queries), rtol=1e-8)
    parts = [gaussian.squared_distance(part) for part in queries.split(700)]
    torch.testing.assert_close(torch.cat(parts), gaussian.squared_distance(queries), rtol=1e-12, atol=0)
    assert gaussian.squared_distance(queries[:0]).shape == (0,)


def test_memory_mapped_features(tmp_path: Path) -> None:
    (x, y), (queries, _) = clouds(500), clouds(50, seed=1)
    for name, rows in (("train", x), ("test", queries)):
        np.save(tmp_path / f"{name}.npy", rows.float().numpy())
    mapped = np.load(tmp_path / "train.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    gaussian = TiedGaussian.fit(mapped, y)
    in_memory = TiedGaussian.fit(x.float(), y)
    assert torch.equal(gaussian.factor, in_memory.factor)
    found = gaussian.squared_distance(np.load(tmp_path / "test.npy", mmap_mode="r"))
    assert torch.equal(found, in_memory.squared_distance(queries.float()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_tensors_of_training(dtype: torch.dtype) -> None:
    x, y = clouds(300)
    x = x.to(dtype)
    with_graph = x.clone().requires_grad_()
    gaussian = TiedGaussian.fit(with_graph, y)
    expected = TiedGaussian.fit(x.double(), y)
    assert torch.equal(gaussian.factor, expected.factor)
    assert torch.equal(gaussian.squared_distance(with_graph), expected.squared_distance(x.double()))
    assert torch.equal(with_graph.detach(), x), "the caller's tensor is left alone"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_features_that_are_not_finite(value: float) -> None:
    x, y = clouds(50)
    gaussian = TiedGaussian.fit(x, y)
    x[7, 2] = value
    with pytest.raises(ValueError, match="the features hold NaN or infinity, expected finite numbers; check the model"):
        TiedGaussian.fit(x, y)
    found = gaussian.squared_distance(x)
    assert found.isfinite().sum() == 49, "a distance would look like a confident answer"
    assert not bool(found[7].isfinite())


@pytest.mark.parametrize(
    ("embedding", "labels", "message"),
    [
        (torch.ones(5, 3), torch.zeros(4), "embedding has 5 rows and labels 4, expected as many, at least one; use"),
        (torch.ones(0, 3), torch.zeros(0), "embedding has 0 rows and labels 0, expected as many, at least one"),
    ],
)
def test_errors_of_the_fit(embedding: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        TiedGaussian.fit(embedding, labels.long())


@pytest.mark.parametrize("shape", [(6,), (10, 5), (2, 3, 6)])
def test_errors_of_the_distance(shape: tuple[int, ...]) -> None:
    gaussian = TiedGaussian.fit(*clouds())
    message = f"embedding has shape {list(shape)}, expected [N, 6] as in the fit; use features of the same model"
    with pytest.raises(ValueError, match=re.escape(message)):
        gaussian.squared_distance(torch.ones(shape))


def many() -> None:
    """Score 50,000 features of 512 dimensions and 1000 classes; prints seconds and MB beyond the features."""
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((50_000, 512), dtype=np.float32), torch.arange(50_000) % 1000
    TiedGaussian.fit(x[:600], y[:600] % 3).squared_distance(x[:10])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    TiedGaussian.fit(x, y).squared_distance(x)
    seconds = time.perf_counter() - start
    print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)  # noqa: T201


@pytest.mark.slow
def test_many_features() -> None:
    code = "import torch; torch.set_num_threads(1); from tests.evaluation.test_mahalanobis import many; many()"
    seconds, megabytes = map(float, run_python("-c", code).split())
    assert seconds < 60
    assert megabytes < 500, "a matrix of all pairs would be 20 GB, all features in float64 are 200 MB"
