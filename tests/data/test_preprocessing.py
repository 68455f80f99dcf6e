"""What networks expect of their images: of timm as its configuration says, of transformers by its own processor."""

import json
import pickle
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import transformers
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

import cosify
from cosify.data import Normalization, PipelineSettings, Preprocessing, eval_transform, open_data, record_preprocessing
from cosify.errors import InputError
from cosify.evaluation.json_records import from_json
from cosify.hub import load
from tests.data.folders import picture, splits_of

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


def test_channels_are_those_that_the_model_was_made_for(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", in_chans=1, num_classes=7, head="cos")
    assert Preprocessing.of_pretrained(model).channels == 1
    assert Preprocessing.of_pretrained(cosify.load(cosify.save(model, tmp_path))).channels == 1


@pytest.mark.parametrize("missing", [{}, {"interpolation": None, "crop_pct": None, "crop_mode": None}])
def test_what_is_missing_is_what_timm_takes(missing: dict[str, None]) -> None:
    config = {"input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3, **missing}
    found = Preprocessing.of_model(config, None, pretrained=True)
    assert (found.interpolation, found.crop_pct, found.crop_mode) == ("bicubic", 0.875, "center")


def test_what_is_recorded_is_what_timm_resolves() -> None:
    model = timm.create_model("test_resnet", pretrained=False, num_classes=2)
    record_preprocessing(model, [1, 8, 16], Normalization((0.3,), (0.2,)), Preprocessing(None, 8))
    resolved = timm.data.resolve_data_config(model=model)
    expected = {"input_size": (1, 8, 16), "mean": (0.3,), "std": (0.2,), "interpolation": "bilinear", "crop_pct": 1.0}
    assert {name: resolved[name] for name in expected} == expected
    assert resolved["crop_mode"] == "center"


def pictures() -> list[Image.Image]:
    """Images of odd sizes, smaller and larger than what models take."""
    sizes = [(31, 57), (97, 64), (200, 41), (49, 48), (48, 48), (300, 311)]
    return [picture(seed, size) for seed, size in enumerate(sizes)]


def as_evaluated(found: Preprocessing, images: list[Image.Image]) -> Tensor:
    """Return what a feature pass gives to the network."""
    splits = splits_of(images, [0] * len(images))
    data = open_data(
        splits, PipelineSettings("none", pipeline="workers", num_workers=0), found, data="", device=torch.device("cpu")
    )
    return torch.cat([pixels for pixels, _ in data.test_batches(4)])


@pytest.mark.parametrize(("crop_mode", "crop_pct"), [("squash", 1.0), ("border", 0.9), ("center", 0.875)])
@pytest.mark.parametrize("channels", [1, 3])
def test_crop_modes_are_those_of_timm(crop_mode: str, crop_pct: float, channels: int) -> None:
    numbers = {"mean": (0.2, 0.3, 0.4)[:channels], "std": (0.5, 0.6, 0.7)[:channels]}
    config = {"input_size": (channels, 48, 48), **numbers, "interpolation": "bicubic"}
    config |= {"crop_pct": crop_pct, "crop_mode": crop_mode}
    found = replace(Preprocessing.of_model(config, 48, pretrained=True), channels=channels)
    timms = create_transform(**resolve_data_config(pretrained_cfg=config))
    images = [image.convert("L" if channels == 1 else "RGB") for image in pictures()]
    expected = torch.stack([timms(image) for image in images])
    torch.testing.assert_close(as_evaluated(found, images), expected, rtol=0, atol=1e-5)
    model = timm.create_model("test_resnet", pretrained=False, in_chans=channels)
    record_preprocessing(model, [channels, 48, 48], Normalization(*numbers.values()), found)
    assert resolve_data_config(model=model)["crop_mode"] == crop_mode


PROCESSORS = {
    "plain": ("ViT", {"size": {"height": 48, "width": 48}, "resample": 3}),
    "not normalised": ("ViT", {"size": {"height": 48, "width": 48}, "do_normalize": False}),
    "from -1 to 1": ("ViT", {"size": {"height": 48, "width": 48}, "rescale_factor": 1 / 127.5, "do_normalize": False}),
    "not rescaled": ("ViT", {"size": {"height": 48, "width": 48}, "do_rescale": False}),
    "box": ("ViT", {"size": {"height": 48, "width": 48}, "resample": 4}),
    "BGR": ("MobileViT", {"size": {"shortest_edge": 56}, "crop_size": {"height": 48, "width": 48}}),
    "cropped": ("ConvNext", {"size": {"shortest_edge": 48}, "crop_pct": 0.75}),
    "squashed": ("ConvNext", {"size": {"shortest_edge": 384}}),
    "256/224": ("Levit", {"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}}),
    "offset": ("EfficientNet", {"size": {"height": 48, "width": 48}, "rescale_offset": True}),
    "padded": ("CLIP", {"size": {"shortest_edge": 40}, "crop_size": {"height": 48, "width": 48}}),
}


def with_processor(folder: Path, kind: str, settings: dict[str, Any]) -> nn.Module:
    """Return a small transformers model that was saved beside an image processor."""
    width = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    transformers.ViTForImageClassification(
        transformers.ViTConfig(image_size=48, num_labels=3, **width)
    ).save_pretrained(folder)
    getattr(transformers, f"{kind}ImageProcessor")(**settings).save_pretrained(folder)
    return load(folder)


@pytest.mark.parametrize("name", PROCESSORS)
def test_transformers_images_are_those_of_the_models_own_processor(name: str, tmp_path: Path) -> None:
    kind, settings = PROCESSORS[name]
    found = Preprocessing.of_pretrained(with_processor(tmp_path, kind, settings))
    assert found.image_size == (384 if name == "squashed" else 48)
    own = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil" if name == "box" else None)
    expected = torch.cat([own(images=image, return_tensors="pt")["pixel_values"] for image in pictures()])
    assert torch.equal(as_evaluated(found, pictures()), expected.float())
    saved = from_json(Preprocessing, json.loads(json.dumps(asdict(found))))
    assert saved == found
    again = eval_transform((3, *expected.shape[2:]), saved)  # as a rejector does it
    assert torch.equal(pickle.loads(pickle.dumps(again))(pictures()[1]), expected[1].float())


@pytest.mark.parametrize("name", ["plain", "BGR", "cropped", "256/224", "padded"])
def test_a_processor_is_set_to_another_size(name: str, tmp_path: Path) -> None:
    kind, settings = PROCESSORS[name]
    found = Preprocessing.of_pretrained(with_processor(tmp_path, kind, settings), 96)
    assert found.image_size == 96
    twice = {
        k: {edge: 2 * n for edge, n in v.items()} if k in ("size", "crop_size") else v for k, v in settings.items()
    }
    own = getattr(transformers, f"{kind}ImageProcessor")(**twice)
    expected = torch.cat([own(images=image, return_tensors="pt")["pixel_values"] for image in pictures()])
    assert torch.equal(as_evaluated(found, pictures()), expected.float())


def test_processors_that_give_no_batch_are_refused(tmp_path: Path) -> None:
    model = with_processor(tmp_path, "Siglip2", {})
    with pytest.raises(
        InputError, match=r"gives \{'pixel_values': .*'spatial_shapes': .*expected pixel_values \[1, chan"
    ):
        Preprocessing.of_pretrained(model)
    model = with_processor(tmp_path, "ViT", {"size": {"height": 0, "width": -1}})
    with pytest.raises(InputError, match="image processor cannot process an image of 96x64 pixels"):
        Preprocessing.of_pretrained(model)
    model = with_processor(tmp_path, "ViT", {"do_resize": False})
    with pytest.raises(InputError, match="image_size is 64, but the model's image processor cannot be set to it"):
        Preprocessing.of_pretrained(model, 64)
    found = Preprocessing.of_pretrained(model)
    assert as_evaluated(found, [picture(0, (31, 57)), picture(1, (31, 57))]).shape == (2, 3, 57, 31)
    message = r"makes \[3, 31, 57\] of an image of 57x31 pixels, expected \[3, 57, 31\] as of the others"
    with pytest.raises(InputError, match=message):
        as_evaluated(found, [picture(0, (31, 57)), picture(1, (57, 31))])


def test_a_transformers_model_has_no_augmentation(tmp_path: Path) -> None:
    found = Preprocessing.of_pretrained(with_processor(tmp_path, *PROCESSORS["plain"]))
    splits, cpu = splits_of(pictures(), [0] * 6), torch.device("cpu")
    with pytest.raises(InputError, match="its own image processor, which augments nothing, expected augment none"):
        open_data(splits, PipelineSettings(), found, data="", device=cpu)
    with pytest.raises(InputError, match="pipeline is 'device' with a model's image processor"):
        open_data(splits, PipelineSettings("none", pipeline="device"), found, data="", device=cpu)


def test_a_model_without_a_processor(tmp_path: Path) -> None:
    model = with_processor(tmp_path, *PROCESSORS["plain"])
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="has no image processor"):
        Preprocessing.of_pretrained(model)


def test_a_timm_model_inside_of_transformers_is_read_as_timm_reads_it(tmp_path: Path) -> None:
    cosify.save(timm.create_model("test_vit", num_classes=3, head="cos", kappa=5.0), tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["pretrained_cfg"] |= {"crop_mode": "squash", "crop_pct": 0.9, "mean": [0.1, 0.2, 0.3]}
    file.write_text(json.dumps(config), encoding="utf-8")
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path)
    found = Preprocessing.of_pretrained(model)
    assert (found.crop_mode, found.crop_pct, found.mean) == ("squash", 0.9, (0.1, 0.2, 0.3))
    own = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    expected = own(pictures())["pixel_values"]
    torch.testing.assert_close(as_evaluated(found, pictures()), expected, rtol=0, atol=1e-5)


def test_what_an_earlier_version_wrote_is_read() -> None:
    saved = {"image_size": 48, "fallback_size": 48, "mean": [0.5], "std": [0.25]}
    saved |= {"interpolation": "bicubic", "crop_pct": 0.9, "channels": 1}
    assert from_json(Preprocessing, saved) == Preprocessing(48, 48, (0.5,), (0.25,), "bicubic", 0.9, 1)
