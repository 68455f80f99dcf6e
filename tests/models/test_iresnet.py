"""The face backbones as timm models."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import cosify
from cosify.models.iresnet import IResNet
from cosify.models.stage_freezing import stages


def small(**kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("iresnet18", num_classes=5, width=0.125, img_size=32, **kwargs)


# 24.03 and 34.14 million are what insightface's iresnet18 and iresnet34 have.
@pytest.mark.parametrize(("name", "num"), [("iresnet18", 24_025_600), ("iresnet34", 34_139_328)])
def test_parameter_counts_are_those_of_insightface(name: str, num: int) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
        assert sum(parameter.numel() for parameter in model.parameters()) == num
        assert model(torch.empty(2, 3, 112, 112)).shape == (2, 512)


def test_layers_come_in_the_order_of_the_source() -> None:
    """A plain sequence of insightface's layers, with this network's weights, gives the same embedding."""
    model = small().eval()
    x = torch.randn(3, 3, 32, 32)
    expected = nn.functional.prelu(model.bn1(model.conv1(x)), model.act1.weight)
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        for block in stage:
            out = nn.functional.conv2d(block.bn1(expected), block.conv1.weight, padding=1)
            out = nn.functional.prelu(block.bn2(out), block.act.weight)
            stride = 2 if block is stage[0] else 1
            out = block.bn3(nn.functional.conv2d(out, block.conv2.weight, padding=1, stride=stride))
            expected = out + (block.downsample(expected) if block is stage[0] else expected)
    expected = model.neck(model.embedding(model.bn2(expected).flatten(1)))
    found = model.forward_head(model.forward_features(x), pre_logits=True)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(model(x), model.fc(expected))


def test_every_stage_halves_the_image() -> None:
    features = timm.create_model("iresnet18", features_only=True, width=0.125, img_size=32)
    maps = features(torch.zeros(1, 3, 32, 32))
    assert features.feature_info.reduction() == [1, 2, 4, 8, 16]
    assert [list(each.shape[1:]) for each in maps] == [[8, 32, 32], [8, 16, 16], [16, 8, 8], [32, 4, 4], [64, 2, 2]]


def test_embeddings_are_centred_and_of_one_scale() -> None:
    model = small().train()
    embedding = model.forward_head(model.forward_features(torch.randn(64, 3, 32, 32)), pre_logits=True)
    torch.testing.assert_close(embedding.mean(dim=0), torch.zeros(64), atol=1e-5, rtol=0)
    torch.testing.assert_close(embedding.std(dim=0, correction=0), torch.ones(64), atol=1e-2, rtol=0)


def test_stages_cover_all_parameters_but_the_classifier() -> None:
    groups = stages(small())
    assert len(groups) == 4
    assert groups[0][:4] == ["conv1.weight", "bn1.weight", "bn1.bias", "act1.weight"]
    assert {"bn2.weight", "embedding.weight", "neck.bias"} <= set(groups[-1])
    assert sum(map(len, groups)) + 2 == len(list(small().parameters()))


def test_takes_a_cosine_head_that_a_saved_folder_keeps(tmp_path: Path) -> None:
    model = small(head="cos").train()
    model(torch.randn(8, 3, 32, 32)).sum().backward()
    assert model.conv1.weight.grad is not None
    cosify.save(model, tmp_path / "saved")
    opened = cosify.load(tmp_path / "saved").eval()
    images = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(opened(images), model.eval()(images))


def test_checkpointed_gradients_are_the_same() -> None:
    images = torch.randn(8, 3, 32, 32)
    gradients = []
    for on in (False, True):
        model = small().train()
        model.set_grad_checkpointing(on)
        model(images).square().mean().backward()
        gradients.append(model.conv1.weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("img_size", [0, 40, (48, 50)])
def test_images_are_whole_multiples_of_the_reduction(img_size: object) -> None:
    with pytest.raises(ValueError, match="expected a multiple of 16 pixels, such as 112"):
        IResNet((1, 1, 1, 1), img_size=img_size)  # type: ignore[arg-type]


def test_config() -> None:
    config = timm.get_pretrained_cfg("iresnet34")
    assert (config.input_size, config.mean, config.std) == ((3, 112, 112), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert timm.list_models("iresnet*") == ["iresnet18", "iresnet34"]
