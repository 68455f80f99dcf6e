"""Multinomial logistic regression by full-batch L-BFGS, preconditioned.

All in float64.  A step in float32 takes 2/5 of the time, but most fits then never reach the tolerance (38 of the 45 on
digits): line searches compare losses that differ by less than its rounding.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cosify.errors import InputError

# Largest entry of the gradient, as a share of the objective, at which a fit ends.  Measured over the whole path of
# digits: the objective is then within 1e-5 of the optimum, relative; 3e-5 where few rows are far larger than the rest.
TOLERANCE = 2e-5
MAX_ITERATIONS = 1000  # most fits take 20 to 300
ITERATIONS_AT_ONCE = 20  # between two looks at the gradient, each of which costs three evaluations
STALE = 10  # a preconditioner serves until p (1 - p) differs by this factor; at 2 to 10 the fits take as long
ABSENT = 1e-12  # rows that a class without any counts for: its best bias, minus infinity, is not a number to start from


@dataclass(frozen=True, eq=False)
class LogisticRegression:
    """A fitted classifier.

    Attributes:
        weight: [C, d], float64.
        bias: [C], float64.
        converged: whether the gradient fell below the tolerance.
    """

    weight: Tensor
    bias: Tensor
    converged: bool

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits [N, C], float64, of features [N, d] that are scaled as those of the fit."""
        return F.linear(features.double(), self.weight, self.bias)


def fit_logistic(
    features: Tensor, labels: Tensor, *, num_classes: int, penalty: float, start: LogisticRegression | None = None
) -> LogisticRegression:
    """Fit multinomial logistic regression by full-batch L-BFGS.

    Minimises sum_n cross_entropy(W x_n + b, y_n) + penalty / 2 ||W||^2: the sum, not the mean, over samples, and no
    penalty on the bias.  This is scikit-learn's `LogisticRegression(C=1 / penalty)`.

    Args:
        features: [N, d], on any device that has float64.
        labels: [N]; a class without rows gets a bias so low that it is never predicted.
        num_classes: C.
        penalty: lambda, > 0.
        start: the fit at a larger penalty, to begin there and save time.

    Raises:
        ValueError: if shapes, values or labels do not fit, or there are fewer than two classes.
        TypeError: if features are not floating point or labels not integer.
    """
    return LogisticProblem(features, labels, num_classes).fit(penalty, start)


class LogisticProblem:
    """Samples that are fitted at several penalties; arguments and errors as of `fit_logistic`.

    Kept are features of mean 0 and overall scale 1 - raw digits then need a fifth of the evaluations - along the axes
    of their X'X.
    """

    @torch.inference_mode(False)  # what gradients will need must not come from it
    def __init__(self, features: Tensor, labels: Tensor, num_classes: int) -> None:
        check_samples("", features, labels, num_classes)
        self.counts = torch.bincount(labels, minlength=num_classes)
        if int((self.counts > 0).sum()) < 2:
            raise InputError(
                f"all {len(labels)} labels are {int(labels[0])}, expected two classes or more; check the split"
            )
        features = features.detach().double()
        self.centre = features.mean(dim=0)
        rows = features - self.centre
        unit = rows.square().mean().sqrt()
        self.unit = torch.where(unit > 0, unit, 1.0)
        rows, self.targets = rows / self.unit, labels.to(torch.int64, copy=True)
        if len(rows) < rows.shape[1]:  # the span of the rows is enough
            _, sizes, transposed = torch.linalg.svd(rows, full_matrices=False)
            self.curvatures, self.axes = sizes.square(), transposed.mT
        else:
            self.curvatures, self.axes = torch.linalg.eigh(rows.mT @ rows)
        self.rows = rows @ self.axes

    @torch.inference_mode(False)  # gradients are needed, also where the caller switched them off
    def fit(self, penalty: float, start: LogisticRegression | None = None) -> LogisticRegression:
        """Return the classifier of one penalty."""
        if not (math.isfinite(penalty) and penalty > 0):
            raise InputError(f"penalty is {penalty}, expected a finite number above 0; for next to none take 1e-6")
        if start is None:
            weight = self.rows.new_zeros(len(self.counts), self.rows.shape[1])
            bias = (self.counts.double().clamp(min=ABSENT) / len(self.rows)).log()
        else:
            weight, bias = start.weight * self.unit @ self.axes, start.logits(self.centre)
        search, rounds, done = None, 0, False
        while not done and rounds < MAX_ITERATIONS // ITERATIONS_AT_ONCE:
            spread = _spread(F.linear(self.rows, weight, bias))
            if search is None or not 1 / STALE <= spread / search.spread <= STALE:
                search = _Search(self, penalty / self.unit.square(), spread, weight, bias)
            search.optimizer.step(search.objective)
            weight, bias = (values.detach() for values in search.weight_and_bias())
            rounds, done = rounds + 1, search.converged()
        weight = weight @ self.axes.mT / self.unit
        return LogisticRegression(weight, bias - weight @ self.centre, done)


def _spread(logits: Tensor) -> float:
    """Return the mean of p (1 - p)."""
    probabilities = logits.softmax(dim=1)
    return float((probabilities * (1 - probabilities)).mean().clamp(min=ABSENT))


class _Search:
    """L-BFGS in weights and biases that are scaled so that the Hessian is about the identity.

    The Hessian is about p (1 - p) X'X + decay I for each class, which is diagonal where the dimensions of X are the
    axes of X'X.  Embeddings then need half the evaluations, or converge at all; features in which few rows are far
    larger than the rest, up to twice as many.
    """

    def __init__(self, problem: LogisticProblem, decay: Tensor, spread: float, weight: Tensor, bias: Tensor) -> None:
        self.problem, self.decay, self.spread = problem, decay, spread
        rounding = problem.curvatures.amax() * len(problem.curvatures) * torch.finfo(torch.float64).eps
        self.scale = (spread * problem.curvatures.clamp(min=rounding) + decay).rsqrt()
        self.bias_scale = (spread * len(problem.rows)) ** -0.5
        self.weight = (weight / self.scale).requires_grad_()
        self.bias = (bias / self.bias_scale).requires_grad_()
        self.optimizer = torch.optim.LBFGS(
            [self.weight, self.bias],
            max_iter=ITERATIONS_AT_ONCE,
            max_eval=ITERATIONS_AT_ONCE * 25,  # as many as the line searches want
            tolerance_grad=0,
            tolerance_change=0,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

    def weight_and_bias(self) -> tuple[Tensor, Tensor]:
        return self.weight * self.scale, self.bias * self.bias_scale

    # Of the sum: L-BFGS of torch 2.14 forgets steps whose curvature is below 1e-10, which those of the mean soon are.
    def objective(self) -> Tensor:
        self.optimizer.zero_grad()
        weight, bias = self.weight_and_bias()
        value = F.cross_entropy(F.linear(self.problem.rows, weight, bias), self.problem.targets, reduction="sum")
        value = value + self.decay / 2 * weight.square().sum()
        value.backward()
        return value

    def converged(self) -> bool:
        """Return whether the gradient is small in the dimensions of the features, before they were turned."""
        limit = TOLERANCE * self.objective()
        assert self.weight.grad is not None
        assert self.bias.grad is not None
        by_weight, by_bias = (self.weight.grad / self.scale) @ self.problem.axes.mT, self.bias.grad / self.bias_scale
        return bool(by_weight.abs().max() <= limit and by_bias.abs().max() <= limit)


def check_samples(name: str, features: Tensor, labels: Tensor, num_classes: int, dim: int | None = None) -> None:
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
