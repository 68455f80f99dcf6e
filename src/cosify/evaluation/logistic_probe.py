"""The linear probe of Table 4: multinomial logistic regression on frozen embeddings."""

import logging
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from cosify.data import held_out_mask
from cosify.errors import InputError

logger = logging.getLogger("cosify")

Scaling = Literal["standardize", "raw", "l2"]

LAMBDAS = tuple(10 ** (5 - exponent / 4) for exponent in range(45))  # 1e5 to 1e-6
MAX_ITERATIONS = 1000  # most fits take 10 to 150


@dataclass(frozen=True)
class ProbeResult:
    """Accuracy on the test set, and how the classifier was chosen.

    Attributes:
        top1: share of test samples whose highest logit is that of their label, in [0, 1].
        mean_per_class: mean of the top-1 accuracies of single classes, over those that the test set holds.
        best_lambda: the lambda of the final fit.
        converged: whether the final fit did.
        lambdas: the path, largest first.
        validation_top1: top-1 accuracy on the validation set for each lambda of the path, in [0, 1].
        path_converged: whether the fit did, for each lambda of the path.
        scaling: of the features.
        num_train: samples that fitted the path; the final fit adds those of validation.
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
) -> ProbeResult:
    """Measure how well classes can be told apart linearly from frozen embeddings.

    Kobayashi, Table 4; the protocol is that of Kornblith et al., CVPR 2019, as the paper's text gives none: lambda is
    chosen by top-1 accuracy on the validation set, the larger of equally good ones; one fit on train and validation
    together is evaluated once on the test set.  A chosen lambda at an edge of the path gives a warning.

    The fit is scikit-learn's `LogisticRegression(C=1 / lambda)`, L-BFGS in float64 on the CPU: the sum over samples of
    cross-entropy + lambda / 2 ||W||^2, no penalty on the bias; for two classes W is one row.  It ends where no entry of
    the gradient of the mean is above 1e-4, or above 1e-3 / C for more than 10 classes.  The same lambda weighs less the
    more samples there are.

    Args:
        train_features: [N, d], not normalised; of a network in evaluation mode.
        train_labels: [N], in [0, C).
        test_features: [M, d].
        test_labels: [M]; classes that do not occur are left out of `mean_per_class`.
        num_classes: C.
        validation: features and labels that choose lambda; None for a part of train.
        hold_out: that part, in (0, 1); random, but every class gives its share, rounded up or down.
        seed: of the choice of that part.
        lambdas: > 0; all are fitted, from the largest to the smallest, each from the fit before.
        scaling: "standardize" for mean 0 and standard deviation 1 of each dimension over the samples of the fit
            (dimensions that are constant there become 0), "l2" for rows of norm 1, or "raw".  Compare models under one
            rule: the norm of embeddings depends on kappa.

    Raises:
        ValueError: if shapes, values, labels or settings do not fit.
        TypeError: if features are not floating point or labels not integer.
    """
    train, test = (train_features, train_labels), (test_features, test_labels)
    correct, how = _probe(train, test, num_classes, validation, hold_out, seed, lambdas, scaling)
    test_labels = test_labels.cpu()
    counts = torch.bincount(test_labels, minlength=num_classes)
    per_class = torch.bincount(test_labels, weights=correct, minlength=num_classes)[counts > 0] / counts[counts > 0]
    return ProbeResult(
        top1=correct.mean().item(),
        mean_per_class=per_class.mean().item(),
        scaling=scaling,
        num_test=len(test_labels),
        num_test_classes=len(per_class),
        **how,
    )


def correct_by_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    num_classes: int,
    hold_out: float = 0.2,
    seed: int = 0,
    lambdas: Sequence[float] = LAMBDAS,
    scaling: Scaling = "standardize",
) -> Tensor:
    """Return which test samples `linear_probe` has right, to pair them with those of another backbone.

    Arguments and errors are those of `linear_probe`.

    Returns:
        1 where the predicted class is that of the label, else 0, [M], float64 on the CPU.
    """
    train, test = (train_features, train_labels), (test_features, test_labels)
    return _probe(train, test, num_classes, None, hold_out, seed, lambdas, scaling)[0]


def _probe(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    num_classes: int,
    validation: tuple[Tensor, Tensor] | None,
    hold_out: float,
    seed: int,
    lambdas: Sequence[float],
    scaling: Scaling,
) -> tuple[Tensor, dict[str, Any]]:
    """Return which test samples a probe has right, and how it was chosen, by the names of `ProbeResult`."""
    train_features, train_labels = train
    _check_samples("train ", train_features, train_labels, num_classes)
    _check_samples("test ", *test, num_classes, train_features.shape[1])
    if scaling not in get_args(Scaling):
        raise InputError(f"scaling is {scaling!r}, expected one of {', '.join(get_args(Scaling))}")
    if len(lambdas) == 0:
        raise InputError("lambdas is empty, expected at least one; leave it out for 45 values from 1e5 to 1e-6")
    bad = [penalty for penalty in lambdas if not (math.isfinite(penalty) and penalty > 0)]
    if bad:
        raise InputError(f"lambda is {bad[0]}, expected a finite number above 0; for next to none take 1e-6")
    if validation is None:
        held = held_out_mask(train_labels, hold_out, seed)
        fitted, chosen_by = (train_features[~held], train_labels[~held]), (train_features[held], train_labels[held])
        every = train_features, train_labels
    else:
        _check_samples("validation ", *validation, num_classes, train_features.shape[1])
        fitted, chosen_by = (train_features, train_labels), validation
        every = torch.cat([train_features, validation[0]]), torch.cat([train_labels, validation[1]])

    if len(fitted[1].unique()) < 2:
        raise InputError(
            f"all {len(fitted[1])} labels are {int(fitted[1][0])}, expected two classes or more; check the split"
        )

    path = sorted(lambdas, reverse=True)
    scale, classifier = _scaler(fitted[0], scaling), _Classifier()
    rows, validation_rows = scale(fitted[0]), scale(chosen_by[0])
    validation_top1: list[float] = []
    path_converged: list[bool] = []
    for penalty in path:
        path_converged.append(classifier.fit(rows, fitted[1], penalty))
        validation_top1.append(classifier.correct(validation_rows, chosen_by[1]).mean().item())
    best = validation_top1.index(max(validation_top1))
    if len(path) > 1 and best in (0, len(path) - 1) and validation_top1[best] < 1:
        logger.warning(
            "lambda is %.3g, the %s of the path: on the validation set (%.1f %% right) one beyond may be better",
            path[best],
            "largest" if best == 0 else "smallest",
            100 * validation_top1[best],
        )

    scale, classifier = _scaler(every[0], scaling), _Classifier()
    converged = classifier.fit(scale(every[0]), every[1], path[best])
    how = {
        "best_lambda": path[best],
        "converged": converged,
        "lambdas": tuple(path),
        "validation_top1": tuple(validation_top1),
        "path_converged": tuple(path_converged),
        "num_train": len(fitted[1]),
        "num_validation": len(chosen_by[1]),
    }
    return classifier.correct(scale(test[0]), test[1]), how


class _Classifier:
    """scikit-learn's logistic regression on tensors; each fit starts from the one before.

    A fit ends where no entry of the gradient of the mean loss is above the tolerance.  These entries shrink as classes
    are added, and so does our tolerance: by scikit-learn's own, 1e-4, a fit of 200 classes counts as converged while
    its loss is 12 % above the least.
    """

    def __init__(self) -> None:
        from sklearn.linear_model import LogisticRegression

        self.model: Any = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)

    def fit(self, features: Tensor, labels: Tensor, penalty: float) -> bool:
        """Fit features [N, d], float64, to labels [N]; return whether it converged."""
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            self.model.set_params(C=1 / penalty, tol=min(1e-4, 1e-3 / len(labels.unique())))
            self.model.fit(features.cpu().numpy(), labels.cpu().numpy())
        return not any(issubclass(each.category, ConvergenceWarning) for each in caught)

    def correct(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return 1 where the predicted class is that of the label, else 0, [N], float64 on the CPU."""
        return (torch.from_numpy(self.model.predict(features.cpu().numpy())) == labels.cpu()).double()


def _scaler(features: Tensor, scaling: Scaling) -> Callable[[Tensor], Tensor]:
    """Return the map that scales features, with the statistics of `features`."""
    if scaling == "raw":
        return lambda rows: rows.double()
    if scaling == "l2":
        return lambda rows: F.normalize(rows.double(), dim=1)
    mean, deviation = features.double().mean(dim=0), features.double().std(dim=0, correction=0)
    # Not by deviation > 0: that of a constant may be a rounding error.
    factor = torch.where(features.amax(dim=0) > features.amin(dim=0), 1 / deviation, 0)
    return lambda rows: (rows.double() - mean) * factor


def _check_samples(name: str, features: Tensor, labels: Tensor, num_classes: int, dim: int | None = None) -> None:
    """Raise unless `features` is a finite [N, d], N and d at least 1, and `labels` [N] of indices in [0, C)."""
    if not features.is_floating_point():
        raise TypeError(f"{name}features are {features.dtype}, expected floating point; call features.float()")
    if features.ndim != 2 or features.numel() == 0:
        raise InputError(
            f"{name}features have shape {list(features.shape)}, expected [N, d], not empty; check the split"
        )
    if dim is not None and features.shape[1] != dim:
        raise InputError(f"{name}features have {features.shape[1]} dimensions, expected {dim} as train; use one model")
    bad = int((~features.isfinite()).any(dim=1).sum())
    if bad > 0:
        raise InputError(
            f"{name}features hold NaN or infinity in {bad} of {len(features)} rows, expected finite numbers; check the"
            " model and its input, or take the features in float32"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"{name}labels are {labels.dtype}, expected integer class indices; call labels.long()")
    if labels.shape != features.shape[:1]:
        raise InputError(
            f"{name}labels have shape {list(labels.shape)}, expected [{len(features)}], one for each feature"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise InputError(
            f"{name}labels run from {low} to {high}, expected 0 to {num_classes - 1} for {num_classes} classes; number"
            " the classes from 0 on"
        )
