"""Checks of what is to be drawn, each with one clear error."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cosify.errors import InputError
from cosify.evaluation.rows import to_float64

Floats = NDArray[np.float64]


def check_some(name: str, entries: Mapping[str, Any]) -> None:
    """Raise ValueError if there is nothing to draw."""
    if not entries:
        raise InputError(f"{name} is empty, expected at least one entry; pass {{label: values}}")


def check_same_keys(name: str, entries: Mapping[str, Any], other: str, others: Mapping[str, Any]) -> None:
    """Raise ValueError unless both have an entry for each model."""
    if entries.keys() != others.keys():
        raise InputError(
            f"{name} has {list(entries)} and {other} has {list(others)}, expected the same models; pass both for each"
        )


def finite(name: str, values: ArrayLike, shape: str = "[N]", *, empty: bool = False) -> Floats:
    """Return values as float64.

    Args:
        name: for the message.
        values: of `shape`.
        shape: `[N]` or `[N, d]`.
        empty: whether N = 0 is allowed.

    Raises:
        ValueError: for another shape, NaN or infinity, or no values unless `empty`.
    """
    array = to_float64(values)
    if array.ndim != shape.count(",") + 1:
        raise InputError(f"{name} has shape {list(array.shape)}, expected {shape}; reshape it")
    if array.size == 0 and not empty:
        raise InputError(f"{name} has shape {list(array.shape)}, expected at least one sample; leave it out")
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise InputError(f"{name} holds NaN or infinity in {bad} of {array.size} values, expected finite; drop them")
    return array


def class_indices(name: str, labels: ArrayLike, num_samples: int, label_names: Sequence[str]) -> NDArray[np.int64]:
    """Return class indices [N].

    Raises:
        ValueError: unless there are `num_samples` integers in [0, number of names).
    """
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise InputError(f"{name} is {array.dtype}, expected integers, class indices; call {name}.astype(int)")
    if array.shape != (num_samples,):
        raise InputError(f"{name} has shape {list(array.shape)}, expected [{num_samples}], one label per sample")
    if array.min() < 0 or array.max() >= len(label_names):
        raise InputError(
            f"{name} holds {array.min()} to {array.max()}, expected 0 to {len(label_names) - 1} for"
            f" {len(label_names)} label_names; pass a name for each class"
        )
    return array.astype(np.int64)
