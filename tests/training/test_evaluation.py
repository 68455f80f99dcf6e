"""Accuracy, loss and angle against a loop; cosine and stock heads."""

import math

import pytest
import timm
import torch
from torch import Tensor, nn

import cosify
from cosify.models import evaluation_mode
from cosify.training import evaluate
from cosify.training.model import set_image_size

CPU = torch.device("cpu")


class Plane(nn.Module):
    """Two-dimensional features straight from the images; class weights at chosen angles."""

    def __init__(self, degrees: list[float], bias: bool = False) -> None:
        super().__init__()
        self.head = nn.Linear(2, len(degrees), bias=bias)
        angles = torch.deg2rad(torch.tensor(degrees))
        self.head.weight.data = 3 * torch.stack([angles.cos(), angles.sin()], dim=1)
        self.pretrained_cfg, self.num_classes = {"classifier": "head"}, len(degrees)  # what timm's factory adds

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


def at(*degrees: float) -> Tensor:
    angles = torch.deg2rad(torch.tensor(degrees))
    return 5 * torch.stack([angles.cos(), angles.sin()], dim=1)


def test_known_angles() -> None:
    batches = [
        (at(10, 80), torch.tensor([0, 1])),
        (at(30), torch.tensor([1])),
    ]  # 10, 10 and 60 degrees; the last is wrong
    result = evaluate(Plane([0, 90]), batches, device=CPU)
    assert result.num_samples == 3
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.mean_angle_deg == pytest.approx(80 / 3, abs=1e-3)
    logits = [
        (15 * math.cos(math.radians(a)), 15 * math.sin(math.radians(a)), label)
        for a, label in ((10, 0), (80, 1), (30, 1))
    ]
    loss = [math.log(math.exp(u) + math.exp(v)) - (u, v)[label] for u, v, label in logits]
    assert result.loss == pytest.approx(sum(loss) / 3, rel=1e-5)


@pytest.mark.parametrize("head", ["cos", "linear"])
def test_timm_models_with_either_head(head: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=5)
    if head == "cos":
        cosify.convert(model)
    model.train()
    images, labels = torch.randn(6, 3, 32, 32), torch.arange(6) % 5
    result = evaluate(model, [(images[:4], labels[:4]), (images[4:], labels[4:])], device=CPU)
    assert model.training, "the mode is not restored"
    model.eval()
    with torch.no_grad():
        embedding = model.forward_head(model.forward_features(images), pre_logits=True)
    weight = model.get_classifier().weight.detach()
    cosine = torch.nn.functional.cosine_similarity(embedding, weight[labels])
    assert result.mean_angle_deg == pytest.approx(float(torch.rad2deg(cosine.acos()).mean()), abs=1e-3)
    assert result.accuracy == pytest.approx(float((model(images).argmax(1) == labels).float().mean()))
    assert not model.get_classifier()._forward_pre_hooks


def test_hook_and_mode_are_restored_after_an_error() -> None:
    model = Plane([0, 90]).train()
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        evaluate(model, [(torch.zeros(1, 7), torch.tensor([0]))], device=CPU)
    assert model.training
    assert not model.head._forward_pre_hooks


def test_every_module_gets_its_own_mode_back() -> None:
    model = timm.create_model("test_resnet", num_classes=5, head="cos").train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.eval()  # frozen
    before = [module.training for module in model.modules()]
    assert len(set(before)) == 2
    evaluate(model, [(torch.randn(2, 3, 32, 32), torch.arange(2))], device=CPU)
    assert [module.training for module in model.modules()] == before
    set_image_size(model, 64)
    assert [module.training for module in model.modules()] == before
    kept = model.eval().get_classifier()._class_norms
    with evaluation_mode(model), torch.no_grad():
        model(torch.randn(2, 3, 32, 32))
        assert kept._kept is not None
    assert kept._kept is None, "the kept norms of the classes are forgotten"


def test_ranks_are_added_up() -> None:
    other = torch.tensor(
        [0.0, 3.0, 60.0, 1.0], dtype=torch.float64
    )  # a rank with one sample: wrong, loss 3, 60 degrees
    result = evaluate(Plane([0, 90]), [(at(0), torch.tensor([0]))], device=CPU, all_sum=lambda values: values + other)
    assert (result.accuracy, result.num_samples) == (0.5, 2)
    assert result.mean_angle_deg == pytest.approx(30, abs=0.05)


def test_errors() -> None:
    with pytest.raises(ValueError, match="there are no samples to evaluate, expected at least one batch"):
        evaluate(Plane([0, 90]), [], device=CPU)
    with pytest.raises(ValueError, match=r"ResNet has no classifier \(num_classes=0\), expected an image classifier"):
        evaluate(timm.create_model("test_resnet", num_classes=0), [], device=CPU)
