"""Diversity of features, Table 3: angles to the classifier and how many dimensions the features take up."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cosify.errors import InputError
from cosify.evaluation.rows import Labels, Rows, row_blocks, to_tensor
from cosify.functional.checks import check_labels
from cosify.functional.similarity import unit_rows

DEFAULT_RTOL = 50_000 * 2.0**-23  # numpy's default for float32 features of ImageNet's validation set; 5.96e-3
LEAST_RTOL = 1e-6  # eigenvalues of X^T X are known to 1e-13 of the largest, their roots to 5e-7
SAME = 2.0**-23  # root mean square distance from the mean direction that float32 cannot tell from 0


@dataclass(frozen=True)
class Diversity:
    """What Table 3 measures of a set of features; zero features are counted in `num_zero` and left out of the rest.

    Attributes:
        mean_class_angle_deg: mean of `class_angles_deg`, in [0, 180]; None without labels.
        mean_span_angle_deg: mean of `span_angles_deg`, in [0, 90]; None where the classifier spans all of R^d.
        span_dim: dimension of the classifier's span.
        numerical_rank: singular values of the unit features, not centred, above `rtol` times the largest.
        effective_rank: exp of the entropy of s / sum(s), s the singular values of the unit features, centred; None if
            all have one direction.  May exceed `numerical_rank`, whose largest singular value is mostly the mean.
        num_pc_99: principal components of the unit features that hold 99 % of their variance; None likewise.
        rtol: tolerance of `numerical_rank`, relative.
        num_samples: N, zero features included.
        num_zero: features of norm 0.
        dim: d.
    """

    mean_class_angle_deg: float | None
    mean_span_angle_deg: float | None
    span_dim: int
    numerical_rank: int
    effective_rank: float | None
    num_pc_99: int | None
    rtol: float
    num_samples: int
    num_zero: int
    dim: int


def feature_diversity(
    embedding: Rows, labels: Labels | None, weight: Tensor, *, rtol: float = DEFAULT_RTOL
) -> Diversity:
    """Measure angles and ranks of features, in float64, on the device of `weight`.

    Kobayashi, Table 3; `effective_rank`: Roy & Vetterli, EUSIPCO 2007.  Deviation: the paper does not define
    its rank; ours takes numpy's default tolerance for 50,000 features in float32, whatever N.  Singular values are
    roots of eigenvalues of X^T X, summed block by block; below sqrt(d 2^-52) of the largest they count as 0.

    Args:
        embedding: [N, d], any norm; of the evaluation set, in evaluation mode.  A memory-mapped array is read once.
        labels: [N], true classes, not predictions; None to leave the class angle out.
        weight: [C, d], any norm; of a linear classifier without its bias.
        rtol: tolerance of the numerical rank, relative to the largest singular value, in [1e-6, 1).

    Raises:
        ValueError: if shapes, values or labels do not fit, there is no feature that is not 0, or `rtol` is too small.
        TypeError: if labels are not integer.
    """
    if not LEAST_RTOL <= rtol < 1:
        raise InputError(f"rtol is {rtol}, expected {LEAST_RTOL} to 1: X^T X loses more; use torch.linalg.svdvals")
    prototypes, basis = _prototypes(weight), span_basis(weight)
    targets = None if labels is None else class_indices(labels, len(embedding), len(weight))
    count, dim, class_angles, span_angles = 0, weight.shape[1], [], []
    mean, scatter = prototypes.new_zeros(dim), prototypes.new_zeros(dim, dim)
    for part, unit in _unit_blocks(embedding, prototypes):
        if targets is not None:
            class_angles.append(_class_angles(unit, prototypes[targets[part].to(unit.device)]))
        if basis.shape[1] < dim:
            span_angles.append(_span_angles(unit, basis))
        rows = unit[unit.any(dim=1)]
        if len(rows) > 0:  # Chan et al. 1979: about the running mean, as X^T X - N m m^T would cancel
            centred, step, share = rows - rows.mean(dim=0), rows.mean(dim=0) - mean, len(rows) / (count + len(rows))
            scatter += centred.T @ centred + count * share * torch.outer(step, step)
            mean += share * step
            count += len(rows)
    if count == 0:
        raise InputError(f"all {len(embedding)} features are 0, expected directions; check the model and its input")
    squares = torch.linalg.eigvalsh(scatter + count * mean.outer(mean))
    effective_rank, num_pc_99 = _spread(torch.linalg.eigvalsh(scatter).flip(0), count)
    return Diversity(
        mean_class_angle_deg=float(torch.cat(class_angles).nanmean()) if class_angles else None,
        mean_span_angle_deg=float(torch.cat(span_angles).nanmean()) if span_angles else None,
        span_dim=basis.shape[1],
        numerical_rank=int((squares > rtol**2 * squares[-1]).sum()),
        effective_rank=effective_rank,
        num_pc_99=num_pc_99,
        rtol=rtol,
        num_samples=len(embedding),
        num_zero=len(embedding) - count,
        dim=dim,
    )


def class_angles_deg(embedding: Rows, labels: Labels, weight: Tensor) -> Tensor:
    """Return the angle between each feature and the classifier of its true class, [N], float64, in [0, 180].

    Kobayashi, Table 3.  A zero feature has none: NaN.  Arguments and errors as in `feature_diversity`.
    """
    prototypes, targets = _prototypes(weight), class_indices(labels, len(embedding), len(weight)).to(weight.device)
    blocks = _unit_blocks(embedding, prototypes)
    return torch.cat([_class_angles(unit, prototypes[targets[part]]) for part, unit in blocks])


def span_angles_deg(embedding: Rows, weight: Tensor) -> Tensor:
    """Return the angle between each feature and the span of the classifiers, [N], float64, in [0, 90].

    Kobayashi, Table 3.  A zero feature has none: NaN.  Where the span is all of R^d none is defined: NaN for all, and
    a warning.  Arguments and errors as in `feature_diversity`.
    """
    prototypes, basis = _prototypes(weight), span_basis(weight)
    if basis.shape[1] == weight.shape[1]:
        message = f"classifiers span all {weight.shape[1]} dimensions, expected fewer; angles are NaN, leave them out"
        warnings.warn(message, stacklevel=2)
    return torch.cat([_span_angles(unit, basis) for _, unit in _unit_blocks(embedding, prototypes)])


def span_basis(weight: Tensor) -> Tensor:
    """Return an orthonormal basis of the classifiers' span, [d, r], float64.

    Right singular vectors of the prototypes whose singular values are above max(d, C) eps times the largest; eps is
    that of the weight's dtype, or float32's where the weight has fewer bits.  Errors as in `feature_diversity`.
    """
    _, values, vectors = torch.linalg.svd(_prototypes(weight), full_matrices=False)
    eps = torch.finfo(torch.promote_types(weight.dtype, torch.float32)).eps
    basis: Tensor = vectors[values > max(weight.shape) * eps * values[0]].T
    return basis


def _class_angles(unit: Tensor, own: Tensor) -> Tensor:
    angle = (unit * own).sum(dim=1).clamp(-1, 1).acos().rad2deg()
    return angle.masked_fill(~unit.any(dim=1), torch.nan)


def _span_angles(unit: Tensor, basis: Tensor) -> Tensor:
    inside = unit @ basis @ basis.T
    angle = torch.atan2((unit - inside).norm(dim=1), inside.norm(dim=1)).rad2deg()
    return angle.masked_fill(~unit.any(dim=1) | (basis.shape[0] == basis.shape[1]), torch.nan)


def _spread(squares: Tensor, count: int) -> tuple[float, int] | tuple[None, None]:
    """Return effective rank and number of principal components from squared singular values, largest first."""
    squares = torch.where(squares > len(squares) * torch.finfo(squares.dtype).eps * squares[0], squares, 0)
    if squares.sum() <= count * SAME**2:
        return None, None
    share = squares.sqrt() / squares.sqrt().sum()
    enough = squares.cumsum(dim=0) >= 0.99 * (1 - 1e-12) * squares.sum()  # exactly 99 % is enough, rounded or not
    return float(torch.special.entr(share).sum().exp()), int(enough.int().argmax()) + 1


def _prototypes(weight: Tensor) -> Tensor:
    """Return the unit rows of `weight` in float64, [C, d]."""
    if weight.ndim != 2 or weight.numel() == 0 or not weight.is_floating_point():
        raise InputError(f"weight is {weight.dtype} {list(weight.shape)}, expected floats [C, d]; pass head.weight")
    bad = int((~weight.isfinite().all(dim=1) | ~weight.any(dim=1)).sum())
    if bad > 0:
        raise InputError(f"weight has {bad} of {len(weight)} rows with NaN, infinity or only 0; check the model")
    return unit_rows(weight.detach().double())


def _unit_blocks(embedding: Rows, prototypes: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield each block as a slice and its rows, of norm 1 or 0, in float64, on the device of the prototypes."""
    if embedding.ndim != 2 or embedding.shape[0] == 0 or embedding.shape[1] != prototypes.shape[1]:
        expected = f"[N, {prototypes.shape[1]}] as weight, N > 0"
        raise InputError(f"embedding has shape {list(embedding.shape)}, expected {expected}; check both")
    for part, block in row_blocks(embedding):
        rows = block.to(prototypes)
        if not bool(rows.isfinite().all()):
            first = part.start + int(rows.isfinite().all(dim=1).int().argmin())
            raise InputError(f"embedding holds NaN or infinity, first in row {first}, expected numbers; check images")
        yield part, unit_rows(rows)


def class_indices(labels: Labels, num_rows: int, num_classes: int) -> Tensor:
    """Return labels as int64 on the CPU; raise unless they are [N] of integers in [0, C)."""
    found = to_tensor(labels).cpu()
    if found.is_floating_point():
        raise TypeError(f"labels are {found.dtype}, expected integer class indices; call labels.long()")
    check_labels(found, num_rows, num_classes)
    return found.long()
