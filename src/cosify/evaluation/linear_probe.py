"""The linear probe of Table 4: multinomial logistic regression on frozen embeddings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from cosify.data import held_out_mask
from cosify.errors import InputError
from cosify.evaluation.logistic_regression import LogisticProblem, LogisticRegression, check_samples

Scaling = Literal["standardize", "raw", "l2"]

LAMBDAS = tuple(10 ** (5 - exponent / 4) for exponent in range(45))  # 1e5 to 1e-6


@dataclass(frozen=True)
class ProbeResult:
    """Accuracy on the test set, and how the classifier was chosen.

    Attributes:
        top1: share of test samples whose highest logit is that of their label, in [0, 1].
        mean_per_class: mean of the top-1 accuracies of single classes, over those that the test set holds.
        best_lambda: the chosen one.
        converged: of the final fit.
        lambdas: the path as far as it was fitted, largest first.
        validation_top1: for each lambda of the path, in [0, 1].
        path_converged: for each lambda of the path.
        scaling: of the features.
        num_train: samples that fitted the path; the final fit takes those of validation too.
        num_validation: samples that chose lambda.
        num_test: samples of the test set.
        num_test_classes: classes among them.
    """

    top1: float
    mean_per_class: float
    best_lambda: float
    converged: bool
    lambdas: tuple[float, ...]
    validation_top1: tuple[float, ...]
    path_converged: tuple[bool, ...]
    scaling: Scaling
    num_train: int
    num_validation: int
    num_test: int
    num_test_classes: int


def linear_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    num_classes: int,
    validation: tuple[Tensor, Tensor] | None = None,
    hold_out: float = 0.2,
    seed: int = 0,
    lambdas: Sequence[float] = LAMBDAS,
    scaling: Scaling = "standardize",
    patience: int | None = None,
) -> ProbeResult:
    """Measure how well classes can be told apart linearly from frozen embeddings.

    Kobayashi, Table 4; the protocol is that of Kornblith et al., CVPR 2019, as the paper's text gives none: lambda is
    chosen by top-1 accuracy on the validation set, the larger of equally good ones; one fit on train and validation
    together is evaluated once on the test set.  For the objective see `fit_logistic`; it sums over samples, so the
    weight of a lambda falls with their number.

    Args:
        train_features: [N, d], not normalised; of a network in evaluation mode.
        train_labels: [N], in [0, C).
        test_features: [M, d].
        test_labels: [M]; classes that do not occur are left out of `mean_per_class`.
        num_classes: C.
        validation: features and labels that choose lambda.  Default: a part of train.
        hold_out: that part, in (0, 1); random, but every class gives its share, rounded up or down.
        seed: of its choice.
        lambdas: all are fitted, from the largest to the smallest.
        scaling: "standardize" for mean 0 and standard deviation 1 of each dimension over the samples of the fit
            (dimensions that are constant there become 0), "l2" for rows of norm 1, or "raw".  Compare models under one
            rule: the norm of embeddings depends on kappa.
        patience: end the path after so many lambdas in a row that are not better on the validation set: the smallest
            ones, which rarely are, take most of the time.  Default: fit them all.

    Raises:
        ValueError: if shapes, values, labels or settings do not fit.
        TypeError: if features are not floating point or labels not integer.
    """
    check_samples("train ", train_features, train_labels, num_classes)
    check_samples("test ", test_features, test_labels, num_classes, train_features.shape[1])
    if scaling not in get_args(Scaling):
        raise InputError(f"scaling is {scaling!r}, expected one of {', '.join(get_args(Scaling))}")
    if len(lambdas) == 0:
        raise InputError("lambdas is empty, expected at least one; leave it out for 45 values from 1e5 to 1e-6")
    if validation is None:
        held = held_out_mask(train_labels, hold_out, seed)
        fitted, chosen_by = (train_features[~held], train_labels[~held]), (train_features[held], train_labels[held])
        every = train_features, train_labels
    else:
        check_samples("validation ", *validation, num_classes, train_features.shape[1])
        fitted, chosen_by = (train_features, train_labels), validation
        every = torch.cat([train_features, validation[0]]), torch.cat([train_labels, validation[1]])

    path = sorted(lambdas, reverse=True)
    scale = _scaler(fitted[0], scaling)
    problem, validation_rows = LogisticProblem(scale(fitted[0]), fitted[1], num_classes), scale(chosen_by[0])
    validation_top1: list[float] = []
    path_converged: list[bool] = []
    model = best = None
    for penalty in path:
        model = problem.fit(penalty, start=model)
        top1 = _correct(model, validation_rows, chosen_by[1]).mean().item()
        if top1 > max(validation_top1, default=-1.0):
            best = model
        validation_top1.append(top1)
        path_converged.append(model.converged)
        since_best = len(validation_top1) - 1 - validation_top1.index(max(validation_top1))
        if patience is not None and since_best >= patience:
            break
    best_lambda = path[validation_top1.index(max(validation_top1))]

    scale = _scaler(every[0], scaling)
    model = LogisticProblem(scale(every[0]), every[1], num_classes).fit(best_lambda, start=best)
    correct = _correct(model, scale(test_features), test_labels)
    counts = torch.bincount(test_labels, minlength=num_classes)
    per_class = torch.bincount(test_labels, weights=correct, minlength=num_classes)[counts > 0] / counts[counts > 0]
    return ProbeResult(
        top1=correct.mean().item(),
        mean_per_class=per_class.mean().item(),
        best_lambda=best_lambda,
        converged=model.converged,
        lambdas=tuple(path[: len(validation_top1)]),
        validation_top1=tuple(validation_top1),
        path_converged=tuple(path_converged),
        scaling=scaling,
        num_train=len(fitted[1]),
        num_validation=len(chosen_by[1]),
        num_test=len(test_labels),
        num_test_classes=len(per_class),
    )


def _correct(model: LogisticRegression, features: Tensor, labels: Tensor) -> Tensor:
    """Return 1 where the highest logit is that of the label, else 0, [N], float64."""
    return (model.logits(features).argmax(dim=1) == labels).double()


def _scaler(features: Tensor, scaling: Scaling) -> Callable[[Tensor], Tensor]:
    """Return the map of features, whose statistics are those of `features`."""
    if scaling == "raw":
        return lambda rows: rows.double()
    if scaling == "l2":
        return lambda rows: F.normalize(rows.double(), dim=1)
    mean, deviation = features.double().mean(dim=0), features.double().std(dim=0, correction=0)
    # Not by deviation > 0: that of a constant may be a rounding error.
    factor = torch.where(features.amax(dim=0) > features.amin(dim=0), 1 / deviation, 0)
    return lambda rows: (rows.double() - mean) * factor
