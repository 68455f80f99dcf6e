"""scripts/sweep.py: what is swept, and what is written."""

from pathlib import Path

import pytest

from cosify.errors import InputError
from scripts import sweep


def test_a_pattern_that_matches_nothing_writes_nothing(tmp_path: Path) -> None:
    args = sweep.SweepArguments(models=["test_vit", "resnet_5*", "ViTForImage"], output=str(tmp_path))
    with pytest.raises(InputError, match=r"models has \['resnet_5\*', 'ViTForImage'\], which matches no architecture"):
        sweep.main(args)
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_swept_in_its_own_library(tmp_path: Path) -> None:
    models = ["test_vit", "ViTForImageClassification", "PPLCNetForImageClassification"]  # the last has no `logits`
    sweep.main(sweep.SweepArguments(models=models, output=str(tmp_path)))
    lines = (tmp_path / "sweep.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    assert all('"ok"' in line for line in lines)
