"""Every score by hand in float64, its direction, and the same through pytorch-ood."""

import dataclasses
import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pytorch_ood import detector as detectors
from pytorch_ood.metrics import OODMetrics
from torch import Tensor, nn

from cosify.evaluation import SCORES, FeatureCache, detection, pytorch_ood_score, scores, to_outlier_scores
from cosify.evaluation.scores import Combine, Mahalanobis, NearestNeighbours, NormMahalanobis
from tests.evaluation.caches import make_cache

Floats = NDArray[np.float64]

# With a larger kappa most probabilities are 1 but for rounding, and their order is that of rounding errors.
HEADS = {"cosine": {"kappa": 5.0}, "stock": {"kappa": None, "bias": True}, "stock without bias": {"kappa": None}}


def caches(head: str = "cosine", num: int = 300) -> tuple[FeatureCache, FeatureCache, FeatureCache]:
    """Return train, test, and outliers."""
    train, test = (make_cache(num, seed=seed, **HEADS[head]) for seed in (1, 2))  # type: ignore[arg-type]
    return train, test, make_cache(labels=torch.full((num,), -1), seed=3, **HEADS[head])  # type: ignore[arg-type]


def by_hand(name: str, cache: FeatureCache, train: FeatureCache) -> list[float]:
    """Return a score, sample by sample."""
    weight = cache.weight.double().numpy()
    bias = np.zeros(len(weight)) if cache.bias is None else cache.bias.double().numpy()
    rows = train.embedding.astype(np.float64)
    if name in ("mahalanobis_unit", "knn"):
        rows = np.array([row / math.sqrt(sum(row**2)) for row in rows])
    classes = sorted(set(train.labels.tolist()))
    means = {c: np.mean([row for row, label in zip(rows, train.labels, strict=True) if label == c], 0) for c in classes}
    centred = np.array([row - means[label] for row, label in zip(rows, train.labels.tolist(), strict=True)])
    covariance = centred.T @ centred / len(rows)
    inverse = np.linalg.inv(covariance + 1e-6 * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))

    def square(x: Floats) -> float:
        return min(float((x - mean) @ inverse @ (x - mean)) for mean in means.values())

    found = []
    for x in cache.embedding.astype(np.float64):
        length = math.sqrt(sum(x**2))
        cosines = [w @ x / math.sqrt(sum(w**2)) / length for w in weight]
        logits = [cache.info.kappa * z for z in cosines] if cache.info.kappa is not None else list(weight @ x + bias)
        total = sum(math.exp(logit) for logit in logits)
        found.append(
            {
                "z_max": lambda cosines=cosines: max(cosines),
                "norm": lambda length=length: length,
                "norm_mahalanobis": lambda x=x, length=length: length / math.sqrt(square(x)),
                "mahalanobis": lambda x=x: -square(x),
                "mahalanobis_unit": lambda x=x, length=length: -square(x / length),
                "knn": lambda x=x, length=length: -sorted(np.sqrt(((rows - x / length) ** 2).sum(axis=1)))[49],
                "msp": lambda logits=logits, total=total: max(logits) - math.log(total),
                "energy": lambda total=total: math.log(total),
                "max_logit": lambda logits=logits: max(logits),
            }[name]()
        )
    return found


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", SCORES)
def test_by_hand(name: str, head: str) -> None:
    train, test, _ = caches(head, num=90)
    found = SCORES[name].fit(train)(test)
    assert (found.dtype, found.shape) == (np.float64, (90,))
    in_float32 = name in ("z_max", "msp", "energy", "max_logit", "knn")
    # The oracle itself loses digits of a probability near 1.
    rtol, atol = 3e-6 if in_float32 else 1e-8, 1e-14 if name == "msp" else 0
    np.testing.assert_allclose(found, by_hand(name, test, train), rtol=rtol * (10 if name == "msp" else 1), atol=atol)


def test_table() -> None:
    fitted = {name for name, score in SCORES.items() if score.needs_train}
    assert fitted == {"norm_mahalanobis", "mahalanobis", "mahalanobis_unit", "knn"}
    assert [name for name, score in SCORES.items() if not score.of_cosine] == ["max_logit"]
    _, test, _ = caches()
    for name in SCORES.keys() - fitted:
        assert len(SCORES[name].fit(None)(test)) == 300


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", SCORES)
def test_larger_is_more_confident(name: str, head: str) -> None:
    # Outliers are short and in no class' direction.
    train, test, outliers = caches(head)
    score = SCORES[name].fit(train)
    assert detection(score(test), score(outliers), resamples=100).auroc > 0.8


@pytest.mark.parametrize(("factor", "names"), [(0.01, ["norm", "norm_mahalanobis"]), (30.0, ["mahalanobis"])])
def test_what_the_norm_says(factor: float, names: list[str]) -> None:
    train, test, _ = caches()
    other = make_cache(embedding=factor * torch.from_numpy(test.embedding), weight=test.weight, kappa=test.info.kappa)
    for name in names:
        score = SCORES[name].fit(train)
        assert detection(score(test), score(other), resamples=100).auroc > 0.99
    for name in ("z_max", "msp", "energy", "mahalanobis_unit", "knn"):  # a cosine head does not look at it
        score = SCORES[name].fit(train)
        np.testing.assert_allclose(score(test), score(other), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SCORES)
def test_order_of_samples(name: str) -> None:
    train, test, _ = caches()
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    shuffled = make_cache(embedding=torch.from_numpy(test.embedding)[order], weight=test.weight, kappa=test.info.kappa)
    score = SCORES[name].fit(train)
    np.testing.assert_allclose(score(shuffled), score(test)[order.numpy()], rtol=1e-5)


@pytest.mark.parametrize("combine", ["ratio", "ratio_sq", "zsum"])
def test_norm_and_mahalanobis(combine: Combine) -> None:
    train, test, outliers = caches()
    minus_square, fitted = Mahalanobis.fit(train), NormMahalanobis.fit(train, combine)
    length, square = np.linalg.norm(test.embedding.astype(np.float64), axis=1), -minus_square(test)
    lengths, squares = np.linalg.norm(train.embedding.astype(np.float64), axis=1), -minus_square(train)
    expected = {
        "ratio": length / np.sqrt(square),
        "ratio_sq": length / square,
        "zsum": (length - lengths.mean()) / lengths.std() - (square - squares.mean()) / squares.std(),
    }[combine]
    np.testing.assert_allclose(fitted(test), expected, rtol=1e-9, atol=1e-9)
    assert detection(fitted(test), fitted(outliers), resamples=100).auroc > 0.9
    if combine == "zsum":
        assert fitted(train).mean() == pytest.approx(0, abs=1e-9), "z-scores of the training split"


def test_ratio_is_the_default() -> None:
    train, test, _ = caches()
    assert NormMahalanobis.fit(train).combine == "ratio"
    np.testing.assert_array_equal(SCORES["norm_mahalanobis"].fit(train)(test), NormMahalanobis.fit(train)(test))


def test_another_combination() -> None:
    with pytest.raises(ValueError, match="combine is 'product', expected one of ratio, ratio_sq, zsum"):
        NormMahalanobis.fit(caches()[0], "product")  # type: ignore[arg-type]


@pytest.mark.parametrize("combine", ["ratio", "ratio_sq"])
def test_at_a_class_mean_confidence_has_no_bound(combine: Combine) -> None:
    # Means and deviations of these are whole numbers, so that D is 0 and not almost so.
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    train = make_cache(embedding=torch.cat([corners, corners + 8]), weight=torch.eye(2), labels=torch.arange(8) // 4)
    found = NormMahalanobis.fit(train, combine)(
        make_cache(embedding=torch.tensor([[8.0, 8.0], [0.0, 0.0], [8.0, 9.0]]))
    )
    assert found[0] > 1e300, "at the mean"
    assert found[1] == 0, "no length, at a mean"
    assert 0 < found[2] < 100


def test_means_of_no_length() -> None:
    train, test, _ = caches()
    nothing = make_cache(embedding=torch.zeros(2, 8), weight=test.weight, kappa=test.info.kappa)
    for name, score in SCORES.items():
        assert np.isfinite(score.fit(train)(nothing)).all(), name
    assert SCORES["norm"].fit(None)(nothing).tolist() == [0, 0]


@pytest.mark.parametrize("k", [1, 2, 90])
def test_nearest_neighbours(k: int) -> None:
    train, test, _ = caches(num=90)
    unit, queries = (cache.embedding.astype(np.float64) / cache.norm[:, None] for cache in (train, test))
    distances = np.sort(np.linalg.norm(queries[:, None] - unit, axis=2), axis=1)
    np.testing.assert_allclose(NearestNeighbours(train, k)(test), -distances[:, k - 1], rtol=1e-6)
    assert NearestNeighbours(train, 1)(train).min() > -1e-3, "each is its own neighbour"


def test_nearest_neighbours_of_a_small_training_split() -> None:
    train, test, _ = caches(num=20)
    np.testing.assert_array_equal(SCORES["knn"].fit(train)(test), NearestNeighbours(train, 20)(test))


@pytest.mark.parametrize("k", [0, 21])
def test_number_of_neighbours(k: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k}, expected 1 to 20, the training samples; choose a smaller one"):
        NearestNeighbours(caches(num=20)[0], k)


@pytest.mark.parametrize(("num", "most"), [(50, 30), (31, 30), (60, 30), (30, 30)])
def test_a_large_training_split_is_thinned(num: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "MOST_NEIGHBOURS", most)
    train, test, _ = caches(num=num)
    rows = [i * num // most for i in range(most)]
    assert max(np.diff(rows)) - min(np.diff(rows)) <= 1
    few = make_cache(embedding=torch.from_numpy(train.embedding)[rows], weight=train.weight)
    np.testing.assert_array_equal(NearestNeighbours(train, most)(test), NearestNeighbours(few, most)(test))
    with pytest.raises(ValueError, match=f"k is {most + 1}, expected 1 to {most}"):
        NearestNeighbours(train, most + 1)


DETECTORS: dict[str, Callable[[], object]] = {
    # Theirs is half the squared distance, its covariance not divided by N and with a ridge of 1e-6: the order of the
    # samples, and so each metric, is the same for features with a deviation near 1.
    "mahalanobis": lambda: detectors.Mahalanobis(None),
    "max_logit": lambda: detectors.MaxLogit(None),
    "msp": lambda: detectors.MaxSoftmax(None),
    "energy": lambda: detectors.EnergyBased(None),
    "knn": lambda: detectors.KNN(None, k=50),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", DETECTORS)
def test_pytorch_ood_agrees(name: str, head: str) -> None:
    train, test, outliers = caches(head)
    detector, ours = DETECTORS[name](), SCORES[name].fit(train)
    accept, reject = pytorch_ood_score(detector, test, train), pytorch_ood_score(detector, outliers)
    theirs = OODMetrics().update(*to_outlier_scores(accept, reject)).compute()
    found = detection(ours(test), ours(outliers), resamples=100)
    assert 0.8 < found.auroc < 1
    assert theirs["AUROC"] == pytest.approx(found.auroc, abs=1e-6)
    assert theirs["FPR95TPR"] == pytest.approx(found.fpr95_ood_positive, abs=1e-6)
    scale = {"mahalanobis": 0.5 / len(train)}.get(name, 1.0)
    values = np.exp(ours(test)) if name == "msp" else scale * ours(test)  # ours is the log of the probability
    np.testing.assert_allclose(accept, values, rtol=1e-4)
    assert (accept.dtype, accept.shape) == (np.float64, (300,))


def test_a_fitted_detector_is_not_fitted_again() -> None:
    train, test, _ = caches()
    detector = detectors.Mahalanobis(None)
    first = pytorch_ood_score(detector, test, train)
    np.testing.assert_array_equal(pytorch_ood_score(detector, test), first)
    assert not np.array_equal(pytorch_ood_score(detector, test, test), first), "with a cache it is"


def test_a_detector_with_trainable_weights() -> None:
    train, test, outliers = caches("stock")
    assert test.bias is not None
    layer = nn.Linear(8, 4)
    with torch.no_grad():
        layer.weight.copy_(test.weight)
        layer.bias.copy_(test.bias)
    detector = detectors.ViM(None, d=4, w=layer.weight, b=layer.bias)
    accept, reject = pytorch_ood_score(detector, test, train), pytorch_ood_score(detector, outliers)
    assert detection(accept, reject, resamples=100).auroc > 0.8


def test_a_detector_that_learns() -> None:
    train, test, _ = caches("stock")
    detector = detectors.TemperatureScaling(None)
    found = pytorch_ood_score(detector, test, train)
    logits: Tensor = torch.cat(list(test.logits())) / detector.t.detach()
    np.testing.assert_allclose(found, logits.softmax(dim=1).amax(dim=1).numpy(), rtol=1e-5)


def test_a_detector_of_images() -> None:
    message = (
        "ODIN takes neither features nor logits, expected a detector of pytorch-ood with predict_features or"
        " predict_logits, such as Mahalanobis(None) or MaxLogit(None)"
    )
    with pytest.raises(TypeError, match=re.escape(message)):
        pytorch_ood_score(detectors.ODIN(nn.Identity()), caches()[1])


def test_direction_turns_once() -> None:
    accept, reject = np.array([3.0, math.inf]), [1, -math.inf, 2]
    found, labels = to_outlier_scores(accept, reject)
    assert found.tolist() == [-3.0, -math.inf, -1.0, math.inf, -2.0]
    assert (found.dtype, labels.tolist()) == (torch.float64, [0, 0, -1, -1, -1])
    assert accept.tolist() == [3.0, math.inf], "the caller's scores are left alone"


@pytest.mark.parametrize("name", SCORES)
def test_labels_and_predictions_of_a_cache_to_score_do_not_matter(name: str) -> None:
    train, test, _ = caches()
    other = dataclasses.replace(test, labels=test.labels * 0, predictions=test.predictions * 0)
    score = SCORES[name].fit(train)
    np.testing.assert_array_equal(score(other), score(test))


def test_sure_predictions_are_told_apart() -> None:
    """At kappa = 60 most probabilities are 1 in float32; the order of the log odds is still there."""
    cache = make_cache(500, kappa=60.0, spread=0.2)
    assert len(np.unique(cache.max_probability)) < 450
    assert len(np.unique(SCORES["msp"].fit(None)(cache))) > 490
