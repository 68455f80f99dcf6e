"""kappa* of the start weights of `cosify adapt`, and what cannot be adapted."""

import json
from pathlib import Path

import pytest
import timm

import cosify
from cosify.training import CosifyArguments, cosify_pretrained
from tests.processes import run_distributed
from tests.training.adaptation_worker import LIMITS, scan

SMALL = {"num_classes": 10, "in_chans": 1, "stem_width": 8, "channels": (8, 8, 8, 16)}


@pytest.mark.slow
def test_ranks_with_unequal_parts_find_the_kappa_of_one_process(tmp_path: Path) -> None:
    run_distributed("tests.training.adaptation_worker", tmp_path, 2)
    _, alone = scan(tmp_path, 1)
    for rank in (0, 1):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        for limit, one, two in zip(LIMITS, alone, found, strict=True):
            assert sum(two["histogram"]) == limit
            assert two["histogram"] == list(one["histogram"]), "other images"  # type: ignore[call-overload]
            assert two["mean"] == pytest.approx(one["mean"], rel=1e-6)


def test_a_classifier_of_classes_in_another_order_leaves_no_folder(tmp_path: Path) -> None:
    model = timm.create_model("resnet10t", **SMALL)
    model.pretrained_cfg.update(input_size=(1, 16, 16), mean=(0.5,), std=(0.5,), crop_pct=1.0, interpolation="bilinear")
    cosify.save(model, tmp_path / "model", label_names=[str(9 - digit) for digit in range(10)])
    args = CosifyArguments(
        model=str(tmp_path / "model"), data="digits", limit_train=64, batch_size=64, tracker="none",
        output=str(tmp_path / "run"),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"another order than the data's: class 0 is '9' there and '0' here"):
        cosify_pretrained(args)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("augment", ["auto", "none"])
def test_models_of_transformers_are_refused(augment: str, tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=16, patch_size=8,
        num_labels=10,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "vit")
    args = CosifyArguments(
        model=str(tmp_path / "vit"), data="digits", augment=augment, tracker="none", output=str(tmp_path / "run")
    )
    with pytest.raises(ValueError, match=r"vit is a model of transformers, expected one of timm; cosify\.convert"):
        cosify_pretrained(args)
    assert not (tmp_path / "run").exists()
