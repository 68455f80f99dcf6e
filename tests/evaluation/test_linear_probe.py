"""The linear probe against scikit-learn, and its protocol on problems whose answer is known."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from cosify.evaluation import ProbeResult, Scaling, fit_logistic, linear_probe

FEW = (100.0, 1.0, 0.01)


def digits() -> tuple[Tensor, Tensor]:
    features, labels = load_digits(return_X_y=True)
    return torch.tensor(features)[:800], torch.tensor(labels)[:800]


def clouds(num: int, num_classes: int = 3, dim: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Overlapping normal distributions, float32; the centres are the same for every seed."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(num_classes, dim, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(num_classes, (num,), generator=generator)
    return centres[labels] + torch.randn(num, dim, generator=generator), labels


def probe(num_classes: int = 3, **settings: object) -> ProbeResult:
    train, test = clouds(150), clouds(300, seed=1)
    return linear_probe(*train, *test, **{"num_classes": num_classes, "lambdas": FEW, **settings})  # type: ignore[arg-type]


def objective_and_gradient(
    features: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: np.ndarray, penalty: float
) -> tuple[float, np.ndarray, np.ndarray]:
    value, by_weight, by_bias = 0.5 * penalty * float((weight**2).sum()), penalty * weight, np.zeros_like(bias)
    for x, label in zip(features, labels, strict=True):
        logits = weight @ x + bias
        shifted = np.exp(logits - logits.max())
        value += math.log(shifted.sum()) + logits.max() - logits[label]
        residual = shifted / shifted.sum() - (np.arange(len(bias)) == label)
        by_weight, by_bias = by_weight + np.outer(residual, x), by_bias + residual
    return value, by_weight, by_bias


@pytest.mark.parametrize("penalty", [1e4, 10.0, 0.1, 1e-3, 1e-5])
@pytest.mark.parametrize("name", ["digits", "raw digits", "clouds", "more dimensions than rows"])
def test_objective_is_that_of_sklearn(name: str, penalty: float) -> None:
    features, labels = {"clouds": clouds(200), "more dimensions than rows": clouds(40, dim=60)}.get(name, digits())
    if name == "digits":
        features = torch.from_numpy(StandardScaler().fit_transform(features.numpy()))
    fit = fit_logistic(features, labels, num_classes=int(labels.max()) + 1, penalty=penalty)
    assert fit.converged
    x, y = features.double().numpy(), labels.numpy()
    ours, by_weight, by_bias = objective_and_gradient(x, y, fit.weight.numpy(), fit.bias.numpy(), penalty)
    oracle = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(x, y)
    theirs, _, _ = objective_and_gradient(x, y, oracle.coef_, oracle.intercept_, penalty)
    assert ours == pytest.approx(theirs, rel=1e-4)
    spread = (x - x.mean(axis=0)).std()
    assert np.abs(by_bias).max() <= 3e-5 * ours
    assert np.abs(by_weight - np.outer(by_bias, x.mean(axis=0))).max() <= 3e-5 * ours * spread


def test_two_points() -> None:
    features, labels = torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1])
    fit = fit_logistic(features, labels, num_classes=2, penalty=0.5)
    w = float(fit.weight[1, 0])  # the minimum of 2 log(1 + e^(-2 w)) + penalty w^2
    assert w == pytest.approx(2 / (1 + math.exp(2 * w)) / 0.5, rel=1e-4)
    assert float(fit.weight[0, 0]) == pytest.approx(-w, rel=1e-4)
    assert float(fit.bias.diff()) == pytest.approx(0, abs=1e-4)
    torch.testing.assert_close(fit.logits(features).diff().squeeze(1), torch.tensor([-2 * w, 2 * w]).double())


def test_a_large_penalty_leaves_the_frequencies() -> None:
    features, labels = clouds(200)
    fit = fit_logistic(features, labels, num_classes=3, penalty=1e9)
    torch.testing.assert_close(fit.bias.softmax(0), labels.bincount().double() / 200, atol=1e-4, rtol=0)


@pytest.mark.parametrize("penalty", [1.0, 1e-28])
def test_repeated_columns_are_one_that_is_longer(penalty: float) -> None:
    features, labels = clouds(200)
    triple, longer = features.double().repeat(1, 3), features.double() * 3**0.5
    found, expected = (
        fit_logistic(rows, labels, num_classes=3, penalty=penalty).logits(rows).softmax(1) for rows in (triple, longer)
    )
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_preconditioning_saves_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, labels = clouds(400, num_classes=10, dim=10)
    features = (inputs @ torch.randn(10, 400, generator=torch.Generator().manual_seed(0))).relu()
    features = (features - features.mean(dim=0)) / features.std(dim=0)
    calls, cross_entropy = [0], torch.nn.functional.cross_entropy

    def counted(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
        calls[0] += 1
        return cross_entropy(logits, targets, reduction=reduction)

    def evaluations() -> int:
        calls[0], fit = 0, None
        for penalty in (100.0, 1.0):
            fit = fit_logistic(features, labels, num_classes=10, penalty=penalty, start=fit)
            assert fit.converged
        return calls[0]

    monkeypatch.setattr("torch.nn.functional.cross_entropy", counted)
    preconditioned = evaluations()
    monkeypatch.setattr("torch.linalg.eigh", lambda gram: (torch.zeros_like(gram[0]), torch.eye(len(gram)).to(gram)))
    plain = evaluations()
    assert preconditioned < 0.6 * plain, (preconditioned, plain)


@pytest.mark.parametrize("penalty", [10.0, 1e-3])
def test_warm_start_is_cold_start(penalty: float) -> None:
    features, labels = clouds(200)
    cold = fit_logistic(features, labels, num_classes=3, penalty=penalty)
    start = fit_logistic(features, labels, num_classes=3, penalty=30 * penalty)
    warm = fit_logistic(features, labels, num_classes=3, penalty=penalty, start=start)
    torch.testing.assert_close(warm.logits(features).softmax(1), cold.logits(features).softmax(1), atol=2e-3, rtol=0)


def test_a_class_without_rows_is_never_predicted() -> None:
    features, labels = clouds(200)
    fit = fit_logistic(features, 2 * labels, num_classes=6, penalty=0.1)
    fewer = fit_logistic(features, labels, num_classes=3, penalty=0.1)
    assert fit.converged
    probability = fit.logits(features).softmax(1)
    torch.testing.assert_close(probability[:, ::2], fewer.logits(features).softmax(1), atol=1e-3, rtol=0)
    assert probability[:, 1::2].max() < 1e-9


def test_features_of_inference_mode() -> None:
    with torch.inference_mode():
        features, labels = clouds(100)
        inside = fit_logistic(features, labels, num_classes=3, penalty=1.0)
    outside = fit_logistic(features, labels, num_classes=3, penalty=1.0)
    torch.testing.assert_close(inside.weight, outside.weight)
    assert not inside.weight.requires_grad


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
    fit = fit_logistic(x, y, num_classes=3, penalty=1.0)
    assert raw.top1 == pytest.approx(float((fit.logits(u).argmax(1) == v).double().mean()))


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
        ({"lambdas": (1.0, 0.0)}, "penalty is 0.0, expected a finite number above 0"),
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


def test_patience_ends_the_path_and_keeps_the_best() -> None:
    lambdas = tuple(10.0**exponent for exponent in range(4, -5, -1))
    whole = probe(lambdas=lambdas)
    best = whole.validation_top1.index(max(whole.validation_top1))
    short = probe(lambdas=lambdas, patience=2)
    assert short.lambdas == lambdas[: best + 3]
    assert short.validation_top1 == whole.validation_top1[: best + 3]
    assert (short.best_lambda, short.top1) == (whole.best_lambda, whole.top1)
