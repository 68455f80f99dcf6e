"""Calibration: whether a classifier's probabilities are right, under several choices of kappa at test time."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cosify.errors import InputError
from cosify.evaluation.diversity import class_indices
from cosify.evaluation.rows import Labels, Rows, row_blocks
from cosify.functional import cosine, ls_kappa
from cosify.functional.checks import check_kappa

NUMBERS_AT_ONCE = 1 << 22  # of logits or embeddings: 32 MB in float64
LEAST, MOST = 1e-3, 1e4  # of a fitted kappa
CLOSE = 1e-7  # of log kappa: the last step of a search
PASSES = 100  # of a search, which takes about ten

Blocks = Callable[[], Iterable[Tensor]]


@dataclass(frozen=True)
class Calibration:
    """How well probabilities agree with what happens.

    Attributes:
        ece: expected calibration error, mean |accuracy - confidence| over bins of equal width (Naeini et al., AAAI
            2015; Guo et al., ICML 2017), as torchmetrics computes it with the l1 norm: bins [a, b), and one of its own
            for confidence 1.
        adaptive_ece: the same over bins of equal numbers of samples (Nguyen & O'Connor, EMNLP 2015), N bins at most;
            samples of equal confidence share their accuracy, so that their order does not matter.
        nll: mean negative log-probability of the label, in nats.
        brier: mean of sum_c (p_c - 1[c = y])^2, in [0, 2].
        accuracy: share of samples whose largest logit, before kappa, is their label's; of equal logits the first.
        mean_confidence: mean probability of the predicted class.
        kappa: mean of what multiplied the logits; 1 / T for temperature scaling.
        num_samples: N.
    """

    ece: float
    adaptive_ece: float
    nll: float
    brier: float
    accuracy: float
    mean_confidence: float
    kappa: float
    num_samples: int


@dataclass(frozen=True, eq=False)
class Bins:
    """Samples in K bins [a, b) of confidence, of equal width on [0, 1], and in one more for a confidence of 1.

    Attributes:
        counts: samples, [K + 1].
        accuracy: [K + 1], NaN in an empty bin.
        confidence: mean of its samples, [K + 1], NaN in an empty bin.
    """

    counts: Tensor
    accuracy: Tensor
    confidence: Tensor

    @property
    def ece(self) -> float:
        """Expected calibration error, the mean |accuracy - confidence| over samples, in [0, 1]."""
        share = self.counts.double() / self.counts.sum()
        return float(((self.accuracy - self.confidence).abs() * share).nansum())


def reliability_bins(confidence: Tensor, hit: Tensor, num_bins: int = 15) -> Bins:
    """Count samples in bins of confidence, as torchmetrics does.

    Guo et al., ICML 2017, Eq. (3).  Deviation: a sample on an edge belongs to the bin above it, not to the one below.

    Args:
        confidence: largest probability [N] in [0, 1]; what rounding put above 1 counts as 1.
        hit: bool [N], whether the prediction is right.
        num_bins: K, at least 1.
    """
    if num_bins < 1:
        raise InputError(f"num_bins is {num_bins}, expected at least 1, such as 15")
    values = confidence.double().clamp(max=1)
    index = torch.bucketize(values, torch.linspace(0, 1, num_bins + 1, dtype=torch.float64), right=True) - 1
    ones, empty = torch.ones_like(values), values.new_zeros(num_bins + 1)
    counts, right, total = (empty.scatter_add(0, index, each) for each in (ones, hit.double(), values))
    return Bins(counts.long(), right / counts, total / counts)


@torch.no_grad()
def calibration(
    logit_blocks: Iterable[Tensor], labels: Labels, *, kappa: float | Tensor = 1.0, num_bins: int = 15
) -> Calibration:
    """Measure the calibration of softmax(kappa * logits), in float64.

    Args:
        logit_blocks: [b, C] each, N rows together: cosines, logits or log-probabilities, not probabilities.
        labels: [N], in [0, C).
        kappa: > 0, scalar or [N]; predictions do not depend on it.
        num_bins: of both calibration errors.

    Raises:
        ValueError: if shapes, values or labels do not fit, or probabilities came instead of logits.
        TypeError: if labels are not integer.
    """
    check_kappa(kappa, len(labels))
    kappas = torch.as_tensor(kappa, dtype=torch.float64, device="cpu").reshape(-1)
    confidences, hits, nll, brier = [], [], 0.0, 0.0
    for part, logits, target in _samples(logit_blocks, labels):
        if bool((kappas == 1).all() & (logits >= 0).all() & ((logits.sum(dim=1) - 1).abs() < 1e-4).all()):
            raise InputError("rows of logits are >= 0 and sum to 1, expected logits; of probabilities pass the log")
        scaled = kappas.expand(len(labels))[part].to(logits.device).unsqueeze(1) * logits
        log_probability, predicted = scaled.log_softmax(dim=1), logits.argmax(dim=1, keepdim=True)
        confidences.append(log_probability.gather(1, predicted).exp().squeeze(1).cpu())
        hits.append((predicted == target).squeeze(1).cpu())
        nll -= float(log_probability.gather(1, target).sum())
        error = log_probability.exp_().scatter_add_(1, target, -torch.ones_like(target, dtype=torch.float64))
        brier += float(error.square_().sum())
    confidence, hit = torch.cat(confidences).clamp(max=1), torch.cat(hits)
    return Calibration(
        ece=reliability_bins(confidence, hit, num_bins).ece,
        adaptive_ece=_adaptive_ece(confidence, hit.double(), num_bins),
        nll=nll / len(hit),
        brier=brier / len(hit),
        accuracy=float(hit.double().mean()),
        mean_confidence=float(confidence.mean()),
        kappa=float(kappas.mean()),
        num_samples=len(hit),
    )


def kappa_calibrations(
    embedding: Rows,
    labels: Labels,
    weight: Tensor,
    *,
    running_kappa: float,
    fit: tuple[Rows, Labels] | None = None,
    is_calibrated: bool = False,
) -> dict[str, Calibration]:
    """Measure a cosine head under each choice of kappa at test time; accuracy is the same for all.

    "running" is the mean over training that the head keeps, or "calibrated" the number that `calibrate` gave it;
    "sample" is Eq. (11) for every test sample, which needs no labels; "fitted" is the one kappa of least NLL on `fit`.
    Each entry holds its (mean) kappa.  Errors as in `calibration`.

    Args:
        embedding: [N, d], any norm; may be memory-mapped.
        labels: [N], in [0, C).
        weight: [C, d], any norm.
        running_kappa: > 0, of the head in evaluation.
        fit: embedding and labels of a validation set, other samples than those measured; None to leave "fitted" out.
        is_calibrated: whether `running_kappa` comes from `calibrate`; its entry is then "calibrated".
    """
    cosines = partial(walk, cosine, embedding, weight)
    own = "calibrated" if is_calibrated else "running"
    found = {own: calibration(cosines(), labels, kappa=running_kappa)}
    found["sample"] = calibration(cosines(), labels, kappa=torch.cat([*walk(ls_kappa, embedding, weight)]).cpu())
    if fit is not None:
        fitted = fit_kappa(partial(walk, cosine, fit[0], weight), fit[1])
        found["fitted"] = calibration(cosines(), labels, kappa=fitted)
    return found


def temperature_calibrations(logits_of: Blocks, labels: Labels, fit: tuple[Blocks, Labels]) -> dict[str, Calibration]:
    """Measure logits as they are ("uncalibrated") and divided by the T of least NLL on `fit` ("temperature").

    Guo et al., ICML 2017.  The latter has 1 / T as its `kappa`.  Arguments as in `fit_kappa`, errors as in
    `calibration`.
    """
    plain = calibration(logits_of(), labels)
    return {"uncalibrated": plain, "temperature": calibration(logits_of(), labels, kappa=fit_kappa(*fit))}


@torch.no_grad()
def fit_kappa(logits_of: Blocks, labels: Labels) -> float:
    """Return the one kappa of least NLL of softmax(kappa * logits), to 1e-7, relative, in float64.

    The NLL is convex in kappa: this is the root of its slope, by Newton's method on log kappa, or bisection where a
    step would leave the bracket.  A minimum outside [1e-3, 1e4] (no sample wrong: infinity; no better than chance: 0)
    gives the nearer end and a warning.  `logits_of` starts a walk over logits or cosines, [b, C] each, and is called
    about ten times; labels are [N].  Errors as in `calibration`.
    """
    for end, sign in ((LEAST, 1), (MOST, -1)):
        if sign * _slopes(logits_of, labels, end)[0] >= 0:
            warnings.warn(f"NLL is least at kappa = {end} or beyond, expected within; fit on others", stacklevel=3)
            return end
    low, high, log_kappa = math.log(LEAST), math.log(MOST), math.log(10)
    for _ in range(PASSES):
        slope, curvature = _slopes(logits_of, labels, math.exp(log_kappa))
        low, high = (low, log_kappa) if slope > 0 else (log_kappa, high)
        newton = log_kappa - slope / (math.exp(log_kappa) * curvature) if curvature > 0 else math.inf
        before, log_kappa = log_kappa, newton if low <= newton <= high else (low + high) / 2
        if abs(log_kappa - before) < CLOSE:
            break
    return math.exp(log_kappa)


def _slopes(logits_of: Blocks, labels: Labels, kappa: float) -> tuple[float, float]:
    """Return the derivatives of NLL by kappa: mean of z - z_y under the softmax, and variance, summed over samples."""
    slope = curvature = 0.0
    for _, logits, target in _samples(logits_of(), labels):
        gap = logits - logits.gather(1, target)
        probability = (kappa * gap).softmax(dim=1)
        mean = (probability * gap).sum(dim=1, keepdim=True)
        slope += float(mean.sum())
        curvature += float((probability * (gap - mean).square()).sum())
    return slope, curvature


def _samples(logit_blocks: Iterable[Tensor], labels: Labels) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield the samples of each block as a slice, their logits [b, C] in float64, and their labels [b, 1]."""
    start = 0
    for logits in logit_blocks:
        part = slice(start, start + len(logits))
        if logits.ndim != 2 or not start < part.stop <= len(labels):
            came = f"logits of shape {list(logits.shape)} came after {start} of {len(labels)} samples"
            raise InputError(f"{came}, expected [b, C], a row for each label; pass logits and labels of one set")
        if not bool(logits.isfinite().all()):
            raise InputError(f"logits of samples {start} to {part.stop - 1} hold NaN or infinity; check the features")
        target = class_indices(labels[part], len(logits), logits.shape[1])
        yield part, logits.detach().double(), target.to(logits.device).unsqueeze(1)
        start = part.stop
    if start == 0 or start < len(labels):
        raise InputError(f"{start} logits came with {len(labels)} labels, expected as many, not 0; check the split")


def walk(function: Callable[[Tensor, Tensor], Tensor], embedding: Rows, weight: Tensor) -> Iterator[Tensor]:
    """Yield `function(embedding, weight)` in blocks of rows that are small enough for the memory."""
    weight = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    size = max(1, NUMBERS_AT_ONCE // max(1, *weight.shape))
    return (function(rows.to(weight), weight) for _, rows in row_blocks(embedding, size))


def _adaptive_ece(confidence: Tensor, hit: Tensor, num_bins: int) -> float:
    values, group, counts = confidence.unique(return_inverse=True, return_counts=True)
    share = torch.zeros_like(values).index_add_(0, group, hit) / counts  # of samples of equal confidence
    gaps = (share - values).repeat_interleave(counts).tensor_split(min(num_bins, len(hit)))
    return sum(abs(float(gap.sum())) for gap in gaps) / len(hit)
