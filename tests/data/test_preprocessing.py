"""What a timm model's configuration says about its images, read and written."""

from types import SimpleNamespace

import pytest
import timm

from cosify.data import Preprocessing, record_preprocessing

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
