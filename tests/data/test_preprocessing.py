"""What a timm model's configuration says about its images, read and written."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import timm

from cosify.data import Preprocessing, record_preprocessing
from cosify.models import load_pretrained

CONFIG = {
    "input_size": (3, 16, 24),
    "mean": [0.1, 0.2, 0.3],
    "std": [0.4, 0.5, 0.6],
    "interpolation": "bicubic",
    "crop_pct": 0.9,
}


@pytest.mark.parametrize("config", [CONFIG, SimpleNamespace(**CONFIG)])
def test_pretrained_weights_bring_their_own(config: object) -> None:
    found = Preprocessing.of_model(config, None, pretrained=True)
    assert found == Preprocessing(None, 24, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic", 0.9)
    scratch = Preprocessing.of_model(config, 32, pretrained=False)
    assert scratch == Preprocessing(32, 24, None, None, "bicubic", 0.9)


@pytest.mark.parametrize("missing", [{}, {"interpolation": None, "crop_pct": None}])
def test_what_is_missing_is_bilinear_and_whole(missing: dict[str, None]) -> None:
    config = {"input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3, **missing}
    found = Preprocessing.of_model(config, None, pretrained=True)
    assert (found.interpolation, found.crop_pct) == ("bilinear", 1.0)


def test_what_is_recorded_is_what_timm_resolves() -> None:
    model = timm.create_model("test_resnet", pretrained=False, num_classes=2)
    record_preprocessing(model, [1, 8, 16], [0.3], [0.2], "bilinear", 1.0)
    resolved = timm.data.resolve_data_config(model=model)
    expected = {"input_size": (1, 8, 16), "mean": (0.3,), "std": (0.2,), "interpolation": "bilinear", "crop_pct": 1.0}
    assert {name: resolved[name] for name in expected} == expected
    assert resolved["crop_mode"] == "center"


def test_a_transformers_model_is_read_from_its_processor(tmp_path: Path) -> None:
    from transformers import ConvNextImageProcessor, ViTConfig, ViTForImageClassification, ViTImageProcessor

    settings = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTForImageClassification(ViTConfig(image_size=48, num_labels=3, **settings)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no image processor"):
        Preprocessing.of_pretrained(load_pretrained(str(tmp_path)))
    ViTImageProcessor(size={"height": 48, "width": 48}, image_mean=[0.1, 0.2, 0.3], resample=3).save_pretrained(
        tmp_path
    )
    model = load_pretrained(str(tmp_path))
    found = Preprocessing.of_pretrained(model)
    assert found == Preprocessing(48, 48, (0.1, 0.2, 0.3), (0.5, 0.5, 0.5), "bicubic", 1.0, 3)
    assert Preprocessing.of_pretrained(model, 64).image_size == 64
    ConvNextImageProcessor(size={"shortest_edge": 48}, crop_pct=0.75).save_pretrained(tmp_path)
    found = Preprocessing.of_pretrained(load_pretrained(str(tmp_path)))
    assert (found.image_size, found.crop_pct) == (48, 0.75)
