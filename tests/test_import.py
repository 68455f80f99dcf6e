"""`import cosify` is quick, and touches transformers only when the program does."""

import time

from tests.processes import run_python

TIMED = """
import sys, time
import torch, timm
start = time.perf_counter()
import cosify
spent = time.perf_counter() - start
heavy = [name for name in ("transformers", "datasets", "accelerate", "matplotlib", "sklearn") if name in sys.modules]
assert not heavy, heavy
print(spent)
"""


def test_import_is_quick_and_light() -> None:
    spent = []
    for _ in range(3):
        spent.append(float(run_python("-c", TIMED)))
        if spent[-1] < 1.0:
            return
        time.sleep(1)
    raise AssertionError(f"import cosify took {spent} seconds beside torch and timm, expected less than 1")


def test_order_of_imports_does_not_matter() -> None:
    for first, second in (("cosify", "transformers"), ("transformers", "cosify")):
        code = f"""
import {first}, {second}
from transformers import PreTrainedModel
assert hasattr(PreTrainedModel.post_init, "cosify_original")
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING as mapping
config = AutoConfig.for_model("cosified")
assert type(config) in mapping.keys(), type(config)
"""
        run_python("-c", code)


def test_public_names() -> None:
    import cosify

    assert cosify.__all__ == sorted(cosify.__all__)
    assert all(hasattr(cosify, name) for name in cosify.__all__)
    assert cosify.functional.__all__ == sorted(cosify.functional.__all__)
