"""What is now a feature cache was called a bank: names in code and folders on disk of that time still work."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cosify import evaluation
from cosify.data import Preprocessing
from cosify.evaluation import CacheKey, FeatureCache, Rejector
from tests.evaluation.caches import make_cache

RENAMED = {
    "BankInfo": "CacheInfo",
    "BankKey": "CacheKey",
    "FeatureBank": "FeatureCache",
    "StaleBankError": "StaleCacheError",
    "feature_bank": "cache_features",
    "scan_bank": "scan_features",
}
INFO = {
    "key": {"model": "m", "data": "d", "transform": "t"},
    "num_samples": 200,
    "dim": 8,
    "num_classes": 4,
    "label_names": ["a", "b", "c", "d"],
    "kappa": 16.0,
    "kappa_policy": 16.0,
    "eval_kappa": "running",
    "output_is_classifier": True,
    "image_shape": [3, 32, 32],
    "preprocessing": {"image_size": 32, "fallback_size": 32, "mean": [0.5], "std": [0.25], "channels": 3},
}


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_old_names_give_what_has_a_new_one(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"^cosify\.evaluation\.{old} is now called {new}; use that name$"):
        assert getattr(evaluation, old) is getattr(evaluation, new)
    assert old not in evaluation.__all__
    with pytest.raises(AttributeError, match="has no attribute 'FeatureBanks'"):
        getattr(evaluation, "FeatureBanks")  # noqa: B009  # mypy knows that there is none


def test_a_folder_of_the_old_layout_opens(tmp_path: Path) -> None:
    now = make_cache()
    for name in ("embedding", "top_cosine", "top_class", "labels", "predictions", "max_logit"):
        np.save(tmp_path / f"{name}.npy", getattr(now, name))
    for name in ("max_probability", "log_odds", "log_sum_exp"):
        np.save(tmp_path / f"{name}.npy", getattr(now, name))
    save_file({"weight": now.weight}, tmp_path / "classifier.safetensors")
    (tmp_path / "bank.json").write_text(json.dumps({"format": 1, "made": "0123456789abcdef", **INFO}))
    found = FeatureCache.open(tmp_path, CacheKey("m", "d", "t"))
    assert found.info == dataclasses.replace(
        now.info,
        key=CacheKey("m", "d", "t"),
        label_names=("a", "b", "c", "d"),
        eval_kappa="running",
        image_shape=(3, 32, 32),
        preprocessing=Preprocessing(32, 32, (0.5,), (0.25,), channels=3),
    )
    assert np.array_equal(found.embedding, now.embedding)
    assert torch.equal(next(found.logits()), next(now.logits()))


def test_a_rejector_of_that_time_loads(tmp_path: Path) -> None:
    now = make_cache()
    save_file({"weight": now.weight}, tmp_path / "rejector-0123456789abcdef.safetensors")
    saved = {
        "format": 1,
        "score": "z_max",
        "threshold": 0.5,
        "share": 0.95,
        "num_held_out": 150,
        "tensors": "rejector-0123456789abcdef.safetensors",
        "info": INFO,
    }
    (tmp_path / "rejector.json").write_text(json.dumps(saved))
    decision = Rejector.load(tmp_path)(torch.from_numpy(now.embedding))
    assert np.array_equal(decision.label, now.predictions)
    assert np.array_equal(decision.accept, now.top_cosine[:, 0] >= 0.5)
