"""Checks of user input at the public boundary: one clear error each, no device sync in the training path.

Values (NaN, range of labels) are checked for CPU tensors outside of a trace only: on an accelerator, reading a value
would stall the queue.  A grid of candidates, which comes once, is read everywhere.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

# torch 2.14 has no public name for this.  Without it, vmap of a head ends in torch's own error.
_transformed: Callable[[], bool] = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)
# Nor for this.  Without it, a head under torch.utils.checkpoint counts each batch twice.
_graph_task: Callable[[], int] = getattr(torch._C, "_current_graph_task_id", lambda: -1)
_unseen: ContextVar[bool] = ContextVar("unseen", default=False)


def check_rows(embedding: Tensor, weight: Tensor) -> None:
    """Raise unless `embedding` is a finite [B, d] and `weight` a finite [C, d] of floating point numbers."""
    check_shapes(embedding, weight)
    check_finite(embedding, "embedding")
    check_finite(weight, "weight")


def check_shapes(embedding: Tensor, weight: Tensor) -> None:
    """Raise unless `embedding` is [B, d] and `weight` [C, d], of floating point numbers."""
    for name, rows, shape in (("weight", weight, "[C, d]"), ("embedding", embedding, "[B, d]")):
        if not rows.is_floating_point():
            raise TypeError(f"{name} is {rows.dtype}, expected a floating point tensor {shape}; call {name}.float()")
        if rows.ndim != 2:
            raise ValueError(f"{name} has shape {list(rows.shape)}, expected {shape}; reshape it to one row per vector")
    if weight.shape[0] == 0:
        raise ValueError(f"weight has shape {list(weight.shape)}, expected at least one class")
    if embedding.shape[1] != weight.shape[1]:
        raise ValueError(
            f"embedding has dimension {embedding.shape[1]} and weight {weight.shape[1]} (shapes {list(embedding.shape)}"
            f" and {list(weight.shape)}), expected the same; build the head with in_features={embedding.shape[1]}"
        )


def check_finite(values: Tensor, name: str) -> None:
    """Raise if a CPU tensor holds NaN or infinity.

    One that does has no finite sum, and a sum costs a thirtieth of a look at every number.
    """
    if values_visible(values) and not math.isfinite(values.detach().sum()) and not bool(values.isfinite().all()):
        bad = (~values.isfinite()).any(dim=-1)
        raise ValueError(
            f"{name} holds NaN or infinity in {int(bad.sum())} of {bad.numel()} rows, expected finite"
            " features; lower the learning rate, warm it up, or clip gradients"
        )


def check_kappa(kappa: float | Tensor, num_rows: int) -> None:
    """Raise unless `kappa` is a number or a tensor of shape [] or [1] or [B], finite and above zero."""
    if isinstance(kappa, Tensor):
        if kappa.shape not in ((), (1,), (num_rows,)):
            raise ValueError(
                f"kappa has shape {list(kappa.shape)}, expected [{num_rows}] (one value per row of embedding) or a"
                " scalar; call kappa.reshape(-1)"
            )
        bad = values_visible(kappa) and not bool((kappa.isfinite() & (kappa > 0)).all())
    else:
        bad = not (math.isfinite(kappa) and kappa > 0)
    if bad:
        raise ValueError(
            f"kappa is {kappa}, expected a finite number above 0 (kappa = 1 / temperature); the useful range starts at"
            " kappa='ls' and ends near twice its mean"
        )


def check_grid(grid: Tensor) -> None:
    """Raise unless `grid` is [K], K >= 1, of finite, positive, strictly increasing values."""
    if not isinstance(grid, Tensor):
        raise TypeError(f"grid is a {type(grid).__name__}, expected a tensor [K]; call torch.tensor(grid)")
    if grid.ndim != 1 or grid.numel() == 0:
        raise ValueError(
            f"grid has shape {list(grid.shape)}, expected [K] with K >= 1; see cosify.functional.kappa_grid"
        )
    if not bool(grid.isfinite().all()) or not bool((grid > 0).all()):
        raise ValueError(f"grid is {grid.tolist()}, expected finite values above 0; see cosify.functional.kappa_grid")
    if not bool((grid[1:] > grid[:-1]).all()):
        raise ValueError(f"grid is not increasing: {grid.tolist()}; sort it and drop repeated values")


def check_chunk(chunk: int | None) -> None:
    """Raise unless `chunk` is None or at least 1."""
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least one class in a block, or None")


def check_labels(labels: Tensor, num_rows: int, num_classes: int) -> None:
    """Raise unless `labels` is [B] of indices in [0, C) or [B, C] of soft targets."""
    if labels.is_floating_point():
        if labels.shape != (num_rows, num_classes):
            raise ValueError(
                f"soft labels have shape {list(labels.shape)}, expected [{num_rows}, {num_classes}] (one weight per"
                " class); pass class indices as int64 for hard labels"
            )
        if values_visible(labels) and not bool((labels >= 0).all()):
            raise ValueError("soft labels hold negative numbers or NaN, expected weights of classes, from 0 on")
        return
    if labels.dtype == torch.bool or labels.is_complex():
        raise TypeError(f"labels are {labels.dtype}, expected integer class indices or floating point soft targets")
    if labels.shape != (num_rows,):
        raise ValueError(f"labels have shape {list(labels.shape)}, expected [{num_rows}] class indices; flatten them")
    if values_visible(labels) and labels.numel() > 0:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"labels out of range: found {low} to {high}, expected 0 to {num_classes - 1} for {num_classes}"
                " classes; re-index the labels or build the head with more classes"
            )


def check_num_classes(num_classes: int, least: int = 2) -> None:
    """Raise unless there are at least `least` classes: a softmax over one class has nothing to learn."""
    if num_classes < least:
        raise ValueError(
            f"num_classes is {num_classes}, expected at least {least}; features without a head are"
            " num_classes=0 in timm"
        )


def values_visible(values: Tensor) -> bool:
    """Return True if values can be read without a device sync or a graph break."""
    if values.device.type != "cpu" or values_hidden() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return False
    return not _unseen.get()


def values_hidden() -> bool:
    """Return True in a graph and in a transform of `torch.func` such as vmap: no value may decide what is computed."""
    return torch.compiler.is_compiling() or _transformed()


def in_backward() -> bool:
    """Return True within a backward pass, where `torch.utils.checkpoint` runs a forward pass again."""
    return _graph_task() != -1


@contextmanager
def values_unseen() -> Iterator[None]:
    """Skip the checks of values inside, as on an accelerator, for a loop whose processes check the loss together.

    An error in one process alone would leave the others waiting.
    """
    token = _unseen.set(True)
    try:
        yield
    finally:
        _unseen.reset(token)
