"""The linear probe against scikit-learn, and its protocol on problems whose answer is known."""

import dataclasses
import json
import math
import re
from importlib import import_module

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from cosify.evaluation import ProbeResult, Scaling, linear_probe
from cosify.evaluation.logistic_probe import _Classifier

FEW = (100.0, 1.0, 0.01)


def clouds(num: int, num_classes: int = 3, dim: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Overlapping normal distributions, float32; the centres are the same for every seed."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(num_classes, dim, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(num_classes, (num,), generator=generator)
    return centres[labels] + torch.randn(num, dim, generator=generator), labels


def probe(num_classes: int = 3, **settings: object) -> ProbeResult:
    train, test = clouds(150), clouds(300, seed=1)
    return linear_probe(*train, *test, **{"num_classes": num_classes, "lambdas": FEW, **settings})  # type: ignore[arg-type]


def test_protocol_step_by_step() -> None:
    (x, y), held, (u, v) = clouds(150), clouds(80, seed=2), clouds(300, seed=1)
    result = linear_probe(x, y, u, v, num_classes=3, validation=held, lambdas=(0.01, 1.0, 100.0))

    def pipeline(penalty: float) -> LogisticRegression:
        return make_pipeline(StandardScaler(), LogisticRegression(C=1 / penalty, solver="newton-cholesky"))

    accuracies = [pipeline(penalty).fit(x, y).score(*held) for penalty in FEW]
    assert result.lambdas == FEW
    assert result.validation_top1 == pytest.approx(accuracies)
    assert result.best_lambda == FEW[accuracies.index(max(accuracies))]
    final = pipeline(result.best_lambda).fit(torch.cat([x, held[0]]), torch.cat([y, held[1]]))
    predicted = final.predict(u)
    assert result.top1 == pytest.approx((predicted == v.numpy()).mean())
    shares = [(predicted[v.numpy() == c] == c).mean() for c in range(3)]
    assert result.mean_per_class == pytest.approx(np.mean(shares))
    assert (result.num_train, result.num_validation, result.num_test, result.num_test_classes) == (150, 80, 300, 3)
    assert result.converged
    assert all(result.path_converged)


def test_default_path() -> None:
    features, labels = torch.tensor([[-1.0, 3.0], [1.0, 3.0]]).repeat(10, 1), torch.arange(2).repeat(10)
    result = linear_probe(features, labels, features, labels, num_classes=2)
    assert result.lambdas == pytest.approx(np.logspace(5, -6, 45))
    assert all(result.path_converged)
    assert (result.top1, result.mean_per_class, result.scaling) == (1.0, 1.0, "standardize")
    assert result.validation_top1 == (1.0,) * 45
    assert result.best_lambda == 1e5, "of equally good lambdas the largest"
    assert ProbeResult(**json.loads(json.dumps(dataclasses.asdict(result)))).top1 == 1.0


def test_classes_absent_from_the_test_set_are_left_out() -> None:
    features = torch.tensor([[0.0], [1.0], [2.0], [3.0]]).repeat(8, 1)
    labels = torch.arange(4).repeat(8)
    test = torch.tensor([[0.0], [0.0], [0.0], [3.0]]), torch.tensor([0, 0, 0, 2])  # the last is taken for class 3
    result = linear_probe(features, labels, *test, num_classes=4, lambdas=(1e-3,))
    assert (result.top1, result.mean_per_class, result.num_test_classes) == (0.75, 0.5, 2)


def test_standardized_features_forget_scale_and_shift() -> None:
    (x, y), (u, v) = clouds(150), clouds(300, seed=1)
    scale, shift = torch.tensor([1e-3, 1.0, 50.0, -2.0, 1e3]), torch.tensor([0.0, 7.0, -100.0, 3.0, 1e3])
    assert linear_probe(scale * x + shift, y, scale * u + shift, v, num_classes=3, lambdas=FEW) == probe()
    assert probe(scaling="raw") != dataclasses.replace(probe(), scaling="raw")


def test_l2_forgets_the_norm_and_raw_takes_it_all() -> None:
    (x, y), (u, v) = clouds(150), clouds(300, seed=1)
    norms = torch.rand(len(x), 1, generator=torch.Generator().manual_seed(0)) + 0.1
    assert linear_probe(norms * x, y, 3 * u, v, num_classes=3, lambdas=FEW, scaling="l2") == probe(scaling="l2")
    raw = probe(scaling="raw", lambdas=(1.0,))
    fit = LogisticRegression(C=1.0, solver="newton-cholesky").fit(x, y)
    assert raw.top1 == pytest.approx(fit.score(u, v))


def test_constant_dimensions_change_nothing() -> None:
    (x, y), (u, v) = clouds(150), clouds(300, seed=1)
    train, test = torch.full((150, 1), 0.1, dtype=torch.float64), torch.full((300, 1), 9.0, dtype=torch.float64)
    x, u = torch.cat([train, x], dim=1), torch.cat([test, u], dim=1)
    assert linear_probe(x, y, u, v, num_classes=3, lambdas=FEW) == probe()
    blank = linear_probe(torch.ones(10, 2), torch.arange(10) % 2, u[:, :2], v % 2, num_classes=2, lambdas=FEW)
    assert blank.converged


def test_other_test_samples_do_not_matter() -> None:
    (x, y), (u, v) = clouds(150), clouds(300, seed=1)
    parts = [linear_probe(x, y, u[rows], v[rows], num_classes=3, lambdas=(100.0,)) for rows in (v == 0, v > 0)]
    assert sum(part.top1 * part.num_test for part in parts) == pytest.approx(300 * probe(lambdas=(100.0,)).top1)
    far = torch.cat([u, 1e4 * u[:1].abs()]), torch.cat([v, v[:1]])
    more = linear_probe(x, y, *far, num_classes=3, lambdas=(100.0,))
    assert round(more.top1 * 301) - round(300 * probe(lambdas=(100.0,)).top1) in (0, 1)


def test_a_class_that_only_validation_holds() -> None:
    (x, y), (u, v) = clouds(150), clouds(300, seed=1)
    result = linear_probe(x[y < 2], y[y < 2], u, v, num_classes=3, validation=(x[y == 2], y[y == 2]), lambdas=(1.0,))
    assert result.validation_top1 == (0.0,)
    assert result.converged
    assert result.top1 == probe(lambdas=(1.0,)).top1, "the final fit has the same rows"


@pytest.mark.parametrize("scaling", ["standardize", "raw", "l2"])
def test_permuted_classes(scaling: Scaling) -> None:
    held, order = clouds(80, seed=2), torch.tensor([2, 0, 1])
    (x, y), (u, v) = clouds(150), clouds(300, seed=1)
    permuted = linear_probe(
        x, order[y], u, order[v], num_classes=3, validation=(held[0], order[held[1]]), lambdas=FEW, scaling=scaling
    )
    plain = probe(validation=held, scaling=scaling)
    assert dataclasses.replace(permuted, mean_per_class=0.0) == dataclasses.replace(plain, mean_per_class=0.0)
    assert permuted.mean_per_class == pytest.approx(plain.mean_per_class)


def test_hold_out() -> None:
    first = probe(seed=0)
    assert (first.num_train, first.num_validation) == (120, 30)
    assert probe(seed=0) == first
    assert len({probe(seed=seed).validation_top1 for seed in range(4)}) > 1
    assert probe(hold_out=0.5).num_validation == 75


def test_every_class_gives_its_share() -> None:
    # At a huge lambda the most frequent class is always predicted, so validation accuracy is its share of validation.
    labels = torch.tensor([0] * 45 + [1] * 35 + [2] * 20)
    features = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    for seed in range(3):
        result = linear_probe(features, labels, features, labels, num_classes=3, seed=seed, lambdas=(1e9,))
        assert result.validation_top1 == (0.45,)


X, Y = clouds(20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"train_features": X.index_fill(0, torch.tensor([3]), math.nan)},
            "train features hold NaN or infinity in 1 of 20 rows",
        ),
        ({"test_features": X * math.inf}, "test features hold NaN or infinity in 20 of 20 rows, expected finite"),
        ({"train_features": X[0]}, "train features have shape [5], expected [N, d], not empty"),
        ({"test_features": X[:0], "test_labels": Y[:0]}, "test features have shape [0, 5], expected [N, d], not empty"),
        ({"test_features": X[:, :4]}, "test features have 4 dimensions, expected 5 as train"),
        ({"train_labels": Y[:19]}, "train labels have shape [19], expected [20], one for each feature"),
        ({"test_labels": Y + 1}, "test labels run from 1 to 3, expected 0 to 2 for 3 classes"),
        ({"train_labels": Y - 1}, "train labels run from -1 to 1, expected 0 to 2 for 3 classes"),
        ({"validation": (X, Y + 1)}, "validation labels run from 1 to 3, expected 0 to 2"),
        ({"train_labels": Y * 0 + 1}, "all 16 labels are 1, expected two classes or more"),
        ({"scaling": "whiten"}, "scaling is 'whiten', expected one of standardize, raw, l2"),
        ({"lambdas": ()}, "lambdas is empty, expected at least one"),
        ({"lambdas": (1.0, 0.0)}, "lambda is 0.0, expected a finite number above 0"),
        ({"hold_out": 0.01}, "hold_out is 0.01, 0 of 20 samples, expected a share that leaves samples on both sides"),
        ({"hold_out": 1.0}, "hold_out is 1.0, 20 of 20 samples, expected a share"),
    ],
)
def test_errors(arguments: dict[str, object], message: str) -> None:
    whole = {"train_features": X, "train_labels": Y, "test_features": X, "test_labels": Y, "num_classes": 3}
    with pytest.raises(ValueError, match=re.escape(message)):
        linear_probe(**{**whole, **arguments})  # type: ignore[arg-type]


def test_kinds() -> None:
    with pytest.raises(TypeError, match=r"train features are torch.int64, expected floating point; call features"):
        linear_probe(X.long(), Y, X, Y, num_classes=3)
    with pytest.raises(TypeError, match=r"test labels are torch.float32, expected integer class indices; call labels"):
        linear_probe(X, Y, X, Y.float(), num_classes=3)


def test_a_plateau_does_not_end_the_path() -> None:
    """With few samples the largest lambdas leave the most frequent class alone."""
    result = probe(lambdas=(1e9, 1e8, 1e7, 1e6, 1.0), validation=clouds(80, seed=2))
    assert len(set(result.validation_top1[:4])) == 1
    assert result.best_lambda == 1.0
    assert result.validation_top1[4] > result.validation_top1[0] + 0.2


@pytest.mark.parametrize(("lambdas", "edge"), [((1e9, 1e8), "1e+09, the largest"), ((1e9, 1.0), "1, the smallest")])
def test_an_edge_of_the_path_is_warned_of(
    lambdas: tuple[float, ...], edge: str, caplog: pytest.LogCaptureFixture
) -> None:
    probe(lambdas=lambdas)
    assert f"lambda is {edge} of the path" in caplog.text


def test_no_edge_is_warned_of_within_the_path_or_where_all_is_right(caplog: pytest.LogCaptureFixture) -> None:
    probe(lambdas=(1e9, 1.0, 0.999))  # of equally good ones the larger
    probe(lambdas=(1.0,))
    rows, labels = torch.tensor([[-1.0], [1.0]]).repeat(10, 1), torch.arange(2).repeat(10)
    linear_probe(rows, labels, rows, labels, num_classes=2, lambdas=FEW)
    assert caplog.text == ""


def test_a_fit_that_does_not_end_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("cosify.evaluation.logistic_probe"), "MAX_ITERATIONS", 1)
    result = probe(lambdas=(1e-3,))
    assert (result.converged, result.path_converged) == (False, (False,))


def test_features_of_inference_mode() -> None:
    with torch.inference_mode():
        inside = probe()
    assert inside == probe()


def test_many_classes_are_fitted_to_the_least_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    centres, labels = torch.randn(200, 64, generator=generator, dtype=torch.float64), torch.arange(200).repeat(8)
    features = centres[labels] + 1.5 * torch.randn(1600, 64, generator=generator, dtype=torch.float64)

    def loss(model: LogisticRegression) -> float:
        weight = torch.from_numpy(model.coef_)
        logits = features @ weight.T + torch.from_numpy(model.intercept_)
        return float(F.cross_entropy(logits, labels, reduction="sum") + 0.05 * weight.square().sum())

    classifier = _Classifier()
    assert classifier.fit(features, labels, 0.1)
    least = LogisticRegression(C=10, tol=1e-7, max_iter=1000).fit(features.numpy(), labels.numpy())
    assert loss(least) <= loss(classifier.model) < 1.005 * loss(least)
