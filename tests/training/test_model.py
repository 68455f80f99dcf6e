"""Networks at another image size than their own, and their layout."""

import copy
from pathlib import Path

import pytest
import timm
import torch

import cosify
from cosify.errors import InputError
from cosify.hub import load
from cosify.models.layout import training_layout
from cosify.training import TrainArguments
from cosify.training.model import ModelChoice, build_model, preprocessing_of
from cosify.training.opener import open_model

VIT = "vit_tiny_patch16_224"
SMALL = {"depth": 1, "embed_dim": 16, "num_heads": 2}  # of it
PIXELS = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))


def built(name: str, size: tuple[int, int], *more: str) -> torch.nn.Module:
    small = [f"{key}={value}" for key, value in SMALL.items()] if name == VIT else []
    args = TrainArguments(model=name, model_kwargs=[*small, *more])
    return build_model(ModelChoice.of(args), args, 3, 3, size)


@pytest.mark.parametrize("name", [VIT, "test_vit", "test_resnet"])
def test_a_network_is_built_for_the_size_of_the_images(name: str, tmp_path: Path) -> None:
    model = built(name, (48, 48))
    logits = model(PIXELS)  # kappa comes with the first batch
    assert logits.shape == (2, 3)
    expected = model.eval()(PIXELS)
    cosify.save(model, tmp_path)
    torch.testing.assert_close(load(tmp_path)(PIXELS), expected)


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_channels_of_the_model_are_those_of_the_images(channels: int | None) -> None:
    choice = ModelChoice("test_resnet", {} if channels is None else {"in_chans": channels}, None)
    assert preprocessing_of(choice, pretrained=False).channels == channels


def test_other_channels_are_refused() -> None:
    with pytest.raises(InputError, match=r"in_chans is 4, expected 1 \(grey\) or 3 \(colour\); change --model-kwargs"):
        preprocessing_of(ModelChoice("test_resnet", {"in_chans": 4}, None), pretrained=False)


def test_images_that_are_not_square() -> None:
    assert built(VIT, (48, 64)).eval()(torch.rand(1, 3, 48, 64)).shape == (1, 3)


def test_a_size_that_a_network_does_not_take_is_one_error() -> None:
    with pytest.raises(InputError, match=r"VisionTransformer takes no images of 48x48 pixels \(.*; drop --image-size"):
        built(VIT, (48, 48), "img_size=64")


def test_a_pretrained_network_is_set_to_another_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model(VIT, num_classes=3, head="cos", kappa=5.0, **SMALL)
    cosify.save(model, tmp_path / "own")
    found, _ = open_model(str(tmp_path / "own"), 48)
    expected = timm.create_model(f"local-dir:{tmp_path / 'own'}", pretrained=True, img_size=48).eval()(PIXELS)
    torch.testing.assert_close(found.eval()(PIXELS), expected)
    cosify.save(found, tmp_path / "other")
    torch.testing.assert_close(load(tmp_path / "other")(PIXELS), expected)


def test_a_transformers_network_that_takes_one_size_says_so(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    width = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTForImageClassification(ViTConfig(image_size=64, num_labels=3, **width)).save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=r"ViTForImageClassification takes no images of 48x48 pixels \(Input image size"
    ):
        open_model(str(tmp_path), 48)


def test_a_network_is_channels_last_where_that_works() -> None:
    cpu = torch.device("cpu")
    wide = timm.create_model("resnet18_cifar", width=0.125, in_chans=3, num_classes=10)  # 8 channels and more
    narrow = built("resnet10t", (32, 32), "stem_width=8", "channels=(8, 8, 8, 16)")  # 6 in the stem
    assert training_layout(wide, cpu) == torch.channels_last
    assert training_layout(narrow, cpu) == training_layout(torch.nn.Conv2d(3, 8, 1), cpu) == torch.contiguous_format
    assert training_layout(narrow, torch.device("cuda")) == torch.channels_last
    assert training_layout(wide, torch.device("mps")) == torch.contiguous_format

    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model = copy.deepcopy(wide).to(memory_format=layout)
        images = PIXELS[..., :32, :32].repeat(8, 1, 1, 1).contiguous(memory_format=layout)
        torch.nn.functional.cross_entropy(model(images), torch.arange(16) % 10).backward()
        gradients.append(model.conv1.weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)
