"""Bad input gives one clear error each."""

import math
from collections.abc import Callable

import pytest
import torch

from cosify import functional as f

X, W = torch.randn(4, 3), torch.randn(5, 3)
Y = torch.arange(4)
NAN = X.clone().index_fill_(0, torch.tensor([1]), math.nan)

CASES: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "dimension": (lambda: f.cosine(X, torch.randn(5, 4)), ValueError, r"dimension 3 and weight 4 .*in_features=3"),
    "rank": (lambda: f.cosine(X[0], W), ValueError, r"embedding has shape \[3\], expected \[B, d\]"),
    "integers": (lambda: f.cosine(X.long(), W), TypeError, r"embedding is torch.int64"),
    "nan feature": (lambda: f.ls_kappa(NAN, W), ValueError, r"embedding holds NaN or infinity in 1 of 4 rows"),
    "infinite weight": (lambda: f.ml_kappa(X, W / 0), ValueError, r"weight holds NaN or infinity in 5 of 5 rows"),
    "kappa zero": (lambda: f.ls_energy(X, W, 0.0), ValueError, r"kappa is 0.0, expected a finite number above 0"),
    "kappa nan": (lambda: f.cosine_softmax_loss(X, W, Y, math.nan), ValueError, r"kappa is nan"),
    "kappa shape": (
        lambda: f.ls_energy(X, W, torch.ones(4, 1)),
        ValueError,
        r"kappa has shape \[4, 1\], expected \[4\]",
    ),
    "negative kappa": (
        lambda: f.ls_energy(X, W, torch.tensor([1, 2, -3, 4.0])),
        ValueError,
        r"kappa is tensor.*above 0",
    ),
    "grid order": (
        lambda: f.ls_kappa(X, W, torch.tensor([2.0, 1.0])),
        ValueError,
        r"grid is not increasing: \[2.0, 1.0\]",
    ),
    "grid sign": (lambda: f.ml_kappa(X, W, torch.tensor([-1.0, 1.0])), ValueError, r"expected finite values above 0"),
    "grid empty": (lambda: f.ls_kappa(X, W, torch.empty(0)), ValueError, r"grid has shape \[0\], expected \[K\]"),
    "grid kind": (lambda: f.ls_kappa(X, W, [1.0, 2.0]), TypeError, r"grid is a list, expected a tensor \[K\]"),  # type: ignore[call-overload]
    "chunk": (lambda: f.ls_kappa(X, W, chunk=-4), ValueError, r"chunk is -4, expected at least one class in a block"),
    "certain cosine": (lambda: f.expected_kappa(10, 1.0), ValueError, r"target_cosine is 1.0, expected a cosine betw"),
    "negative cosine": (lambda: f.expected_kappa(10, -0.5), ValueError, r"target_cosine is -0.5, expected a cosine"),
    "grid bounds": (lambda: f.kappa_grid(5, -2), ValueError, r"grid of 20 values from e\^5 to e\^-2 is not increasing"),
    "labels high": (
        lambda: f.cosine_softmax_loss(X, W, torch.tensor([0, 1, 2, 5]), 5.0),
        ValueError,
        r"labels out of range: found 0 to 5, expected 0 to 4 for 5 classes",
    ),
    "labels shape": (
        lambda: f.cosine_softmax_loss(X, W, Y[:3], 5.0),
        ValueError,
        r"labels have shape \[3\], expected \[4\]",
    ),
    "soft shape": (lambda: f.cosine_softmax_loss(X, W, X, 5.0), ValueError, r"soft labels have shape \[4, 3\]"),
    "soft sign": (
        lambda: f.cosine_softmax_loss(X, W, -torch.ones(4, 5), 5.0),
        ValueError,
        r"soft labels hold negative",
    ),
    "bool labels": (lambda: f.cosine_softmax_loss(X, W, Y > 1, 5.0), TypeError, r"labels are torch.bool"),
    "no classes": (lambda: f.ml_kappa(X, W[:0]), ValueError, r"weight has shape \[0, 3\], expected at least one class"),
    "simplified": (
        lambda: f.simplified_loss(X, 5, -1.0),
        ValueError,
        r"kappa is -1.0, expected a finite number above 0",
    ),
    "grid range": (
        lambda: f.kappa_grid(-200, 200, 5),
        ValueError,
        r"is not increasing; expected num >= 1 and -87 < low",
    ),
    "grid step": (lambda: f.kappa_grid(0, 1e-9, 5), ValueError, r"grid of 5 values from e\^0 to e\^1e-09"),
    "margin": (lambda: f.cosine_softmax_loss(X, W, Y, 5.0, -0.1), ValueError, r"margin is -0.1"),
    "one class": (lambda: f.adacos_kappa(1), ValueError, r"num_classes is 1, expected at least 2"),
    "one class loss": (lambda: f.simplified_loss(X, 1, 5.0), ValueError, r"num_classes is 1, expected at least 2"),
    "flat density": (lambda: f.ml_kappa(X[:, :1], W[:, :1]), ValueError, r"dimension 1, expected at least 2"),
}


@pytest.mark.parametrize("name", CASES)
def test_message(name: str) -> None:
    call, error, message = CASES[name]
    with pytest.raises(error, match=message):
        call()
