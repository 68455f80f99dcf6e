"""One clear error for each kind of input that cannot be drawn."""

import re
from typing import Any

import numpy as np
import pytest

from cosify.plots.checks import check_same_keys, check_some, class_indices, finite


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0]], "x has shape [1, 1], expected [N]; reshape it"),
        ([], "x has shape [0], expected at least one sample; leave it out"),
        ([1, np.nan, np.inf], "x holds NaN or infinity in 2 of 3 values, expected finite; drop them"),
    ],
)
def test_finite(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        finite("x", values)


def test_finite_passes() -> None:
    assert finite("x", np.array([1, 2], dtype=np.float16)).dtype == np.float64
    assert finite("x", [], empty=True).shape == (0,)
    assert finite("x", [[1, 2]], "[N, d]").tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 1.0], "y is float64, expected integers, class indices; call y.astype(int)"),
        ([0, 1, 1], "y has shape [3], expected [2], one label per sample"),
        ([0, 2], "y holds 0 to 2, expected 0 to 1 for 2 label_names; pass a name for each class"),
        ([-1, 0], "y holds -1 to 0, expected 0 to 1 for 2 label_names; pass a name for each class"),
    ],
)
def test_class_indices(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        class_indices("y", labels, 2, ["cat", "dog"])


def test_mappings() -> None:
    with pytest.raises(ValueError, match=r"^models is empty, expected at least one entry; pass {label: values}$"):
        check_some("models", {})
    with pytest.raises(ValueError, match=r"^a has \['x'\] and b has \['y'\], expected the same models; pass both"):
        check_same_keys("a", {"x": 1}, "b", {"y": 1})
