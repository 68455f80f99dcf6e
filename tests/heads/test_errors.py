"""Bad settings of a head give one clear error each."""

import math
from collections.abc import Callable

import pytest
import torch

from cosify.heads import CosineLinear, HeadSpec

CASES: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "unknown policy": (
        lambda: CosineLinear(8, 4, kappa="lsq"),
        ValueError,
        r"unknown kappa policy 'lsq', expected a number above 0 or one of \['2ls', 'adacos', 'adacos-dynamic', 'ls',",
    ),
    "zero": (lambda: CosineLinear(8, 4, kappa=0), ValueError, r"kappa is 0, expected a finite number above 0"),
    "negative": (lambda: CosineLinear(8, 4, kappa=-3.0), ValueError, r"kappa is -3.0"),
    "nan": (lambda: CosineLinear(8, 4, kappa=math.nan), ValueError, r"kappa is nan"),
    "kind": (lambda: CosineLinear(8, 4, kappa=None), TypeError, r"kappa is None \(NoneType\)"),  # type: ignore[arg-type]
    "bool": (lambda: CosineLinear(8, 4, kappa=True), TypeError, r"kappa is True \(bool\)"),
    "one class": (lambda: CosineLinear(8, 1), ValueError, r"num_classes is 1, expected at least 2"),
    "adacos": (lambda: CosineLinear(8, 2, kappa="adacos"), ValueError, r"num_classes is 2, expected at least 3"),
    "eval": (
        lambda: CosineLinear(8, 4, eval_kappa="mean"),  # type: ignore[arg-type]
        ValueError,
        "eval_kappa is 'mean', expected 'running', 'sample' or a finite number above 0",
    ),
    "eval later": (
        lambda: setattr(CosineLinear(8, 4), "eval_kappa", "smaple"),
        ValueError,
        "eval_kappa is 'smaple', expected 'running', 'sample' or a finite number above 0",
    ),
    "eval sign": (lambda: setattr(CosineLinear(8, 4), "eval_kappa", -3.0), ValueError, "eval_kappa is -3.0, expected"),
    "norm": (lambda: CosineLinear(8, 4, start_norm=0.0), ValueError, "start_norm is 0.0, expected a finite number abo"),
    "dimension": (lambda: CosineLinear(8, 4)(torch.randn(2, 9)), ValueError, r"embedding has dimension 9 and weight 8"),
    "features": (
        lambda: CosineLinear(8, 4)(torch.full((2, 8), math.nan)),
        ValueError,
        r"embedding holds NaN or infinity in 2 of 2 rows",
    ),
    "classes": (
        lambda: CosineLinear(8, 4).load_state_dict(CosineLinear(8, 5).state_dict()),
        ValueError,
        r"weight holds 5 classes, this head has 4; build the model with num_classes=5",
    ),
    "key": (lambda: HeadSpec.from_user({"type": "cos", "scale": 3}), ValueError, r"unknown keys \['scale'\]"),
    "twice": (
        lambda: HeadSpec.from_user({"type": "cos", "kappa": 3}, 4),
        ValueError,
        r"kappa is given twice, 3 .* and 4",
    ),
    "saved": (lambda: HeadSpec.from_config({"format": 1}, "f"), ValueError, r"'cosify' key of f is damaged"),
    "saved text": (lambda: HeadSpec.from_config("ls", "f"), ValueError, r"'cosify' key of f is damaged"),
    "format": (lambda: HeadSpec.from_config({"format": 9}, "f"), ValueError, r"format 9, this cosify reads 1"),
    "saved kappa": (
        lambda: HeadSpec.from_config(
            {
                "format": 1,
                "kappa": "ls",
                "eval_kappa": "running",
                "heads": {"fc": {"kappa": -1, "embedding_norm": 1, "num_classes": 4}},
            },
            "f",
        ),
        ValueError,
        r"kappa of a saved head is -1",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_message(name: str) -> None:
    call, error, message = CASES[name]
    with pytest.raises(error, match=message):
        call()


def test_spec_survives_json() -> None:
    spec = HeadSpec.of_heads({"fc": CosineLinear(8, 4, kappa=3.5, eval_kappa="sample")})
    assert HeadSpec.from_config(spec.to_config(), "here") == spec
