"""The CIFAR-stem ResNets as timm models."""

from pathlib import Path

import pytest
import timm
import torch
from timm.models.resnet import ResNet
from torch import nn

import cosify
from cosify.heads import CosineLinear
from cosify.models.cifar_resnet import CifarResNet, scaled_channels
from cosify.models.stage_freezing import stages


@pytest.mark.parametrize(
    ("name", "width", "millions"),
    [
        ("resnet18_cifar", 1.0, 11.220_132),  # the count of the common CIFAR-100 ResNets
        ("resnet34_cifar", 1.0, 21.328_292),
        ("resnet18_cifar", 0.25, 0.713_076),
        ("resnet34_cifar", 0.25, 1.346_228),
    ],
)
def test_parameter_counts(name: str, width: float, millions: float) -> None:
    model = timm.create_model(name, num_classes=100, width=width)
    assert isinstance(model, ResNet)
    assert sum(parameter.numel() for parameter in model.parameters()) == round(millions * 1e6)


def test_stem_keeps_the_resolution() -> None:
    model = timm.create_model("resnet18_cifar", num_classes=100, width=0.25, in_chans=1)
    assert (model.conv1.kernel_size, model.conv1.stride, model.conv1.in_channels) == ((3, 3), (1, 1), 1)
    assert model.layer1[0].downsample is None
    assert model.forward_features(torch.zeros(1, 1, 32, 32)).shape == (1, 128, 4, 4)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 100)


def test_a_neck_centres_what_the_classifier_is_given(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = timm.create_model("resnet18_cifar", num_classes=5, width=0.125)
    model = timm.create_model("resnet18_cifar", num_classes=5, width=0.125, neck=True, head="cos", kappa=10.0)
    model.load_state_dict(
        {name: value for name, value in plain.state_dict().items() if "fc." not in name}, strict=False
    )
    images = torch.randn(16, 3, 32, 32)
    given = model.forward_head(model.forward_features(images), pre_logits=True)
    pooled = plain.forward_head(plain.forward_features(images), pre_logits=True)
    torch.testing.assert_close(given, nn.functional.batch_norm(pooled, None, None, training=True), rtol=1e-4, atol=1e-4)
    cosify.save(model, tmp_path / "saved")
    opened = cosify.load(tmp_path / "saved")
    torch.testing.assert_close(opened.eval()(images), model.eval()(images))
    assert {"neck.weight", "neck.bias"} <= set(stages(model)[-1])


def test_stem_is_initialised_as_the_other_convolutions_are() -> None:
    torch.manual_seed(0)
    weight = timm.create_model("resnet18_cifar").conv1.weight.detach()
    assert float(weight.std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


def test_no_classes_and_new_classes() -> None:
    model = timm.create_model("resnet18_cifar", num_classes=0, width=0.25)
    assert isinstance(model.fc, nn.Identity)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 128)
    model.reset_classifier(7)
    assert model.get_classifier() is model.fc
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_features_only() -> None:
    features = timm.create_model("resnet18_cifar", features_only=True, width=0.25)
    maps = features(torch.zeros(1, 3, 32, 32))
    assert features.feature_info.reduction() == [1, 1, 2, 4, 8]
    assert [list(each.shape[1:]) for each in maps] == [
        [16, 32, 32],
        [16, 32, 32],
        [32, 16, 16],
        [64, 8, 8],
        [128, 4, 4],
    ]


def test_config() -> None:
    model = timm.create_model("resnet34_cifar")
    config = model.pretrained_cfg
    assert model.num_classes == 100
    assert (config["input_size"], config["first_conv"], config["classifier"]) == ((3, 32, 32), "conv1", "fc")
    assert config["mean"] == (0.4914, 0.4822, 0.4465)
    assert timm.list_models("*_cifar") == ["resnet18_cifar", "resnet34_cifar"]
    assert "resnet18_cifar" not in timm.list_models(pretrained=True), "a tag names weights; none is the default"


def test_takes_a_cosine_head() -> None:
    model = cosify.convert(timm.create_model("resnet18_cifar", num_classes=10, width=0.125), kappa="ls")
    assert isinstance(model.fc, CosineLinear)
    model(torch.randn(4, 3, 16, 16)).sum().backward()
    assert model.conv1.weight.grad is not None
    assert model.fc.last_kappa.shape == (4,)


@pytest.mark.parametrize("width", [0.0, -1.0, 0.01, 1 / 64, 0.3, float("nan")])
def test_width_must_give_whole_channels(width: float) -> None:
    with pytest.raises(
        ValueError, match=r"width is .*, which gives .* channels in the first stage, expected an even whole"
    ):
        CifarResNet((1, 1, 1, 1), width=width)
    assert scaled_channels(1 / 32) == (2, 4, 8, 16)


def test_stem_arguments_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"\['channels', 'stem_type'\] cannot be set for a CIFAR ResNet, expected width alone"
    ):
        CifarResNet((1, 1, 1, 1), channels=(1, 2, 3, 4), stem_type="deep")
