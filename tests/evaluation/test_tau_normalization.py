"""tau-normalisation against plain loops."""

import math

import pytest
import timm
import torch

from cosify import convert
from cosify.evaluation import tau_normalize, tau_normalized


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.7])
def test_weights_are_divided_by_a_power_of_their_norm(tau: float) -> None:
    weight = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight[4] = 0
    found = tau_normalized(weight, tau)
    for row, values in enumerate(weight.tolist()):
        norm = math.sqrt(sum(value * value for value in values))
        expected = [value / norm**tau if norm > 0 else 0.0 for value in values]
        assert found[row].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_a_softmax_model_is_normalised_in_place_and_loses_its_bias() -> None:
    model = timm.create_model("resnet18_cifar", width=0.125, num_classes=4).eval()
    torch.nn.init.normal_(model.fc.bias)
    weight = model.fc.weight.detach().clone()
    tau_normalize(model)
    assert model.fc.weight.norm(dim=1).tolist() == pytest.approx([1.0] * 4, rel=1e-6)
    torch.testing.assert_close(model.fc.weight, weight / weight.norm(dim=1, keepdim=True))
    assert not model.fc.bias.any()


def test_what_has_no_effect_or_no_sense_is_refused() -> None:
    cosine = convert(timm.create_model("resnet18_cifar", width=0.125, num_classes=4), kappa=10.0)
    with pytest.raises(ValueError, match="has a cosine head, whose logits do not depend on the norms of its weights"):
        tau_normalize(cosine)
    with pytest.raises(ValueError, match="has no classifier, expected softmax heads"):
        tau_normalize(timm.create_model("resnet18_cifar", width=0.125, num_classes=0))
    with pytest.raises(ValueError, match="tau is -1, expected a number from 0 on"):
        tau_normalized(torch.ones(2, 2), -1)
