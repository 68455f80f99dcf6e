"""Adapters and quantisers, by stand-ins that do what PEFT, optimum-quanto and torchao do, refuse or are right."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cosify.errors import InputError
from cosify.heads import CosineConv1x1, CosineLinear


class Lora(nn.Module):
    """As PEFT's: chosen by `isinstance(layer, nn.Linear)`, holds the layer, adds to what it returns."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.delta = nn.Linear(base_layer.in_features, base_layer.out_features, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        result: Tensor = self.base_layer(input) + self.delta(input)
        return result


class QuantisedLinear(nn.Linear):
    """As optimum-quanto's: takes the weight over and the place of the layer."""

    @classmethod
    def from_float(cls, layer: nn.Linear) -> "QuantisedLinear":
        quantised = cls(layer.in_features, layer.out_features, bias=layer.bias is not None)
        quantised.weight = layer.weight
        return quantised


class Int8(Tensor):
    """As torchao's: stands in for the weight of a layer that stays, and computes nothing but its numbers."""

    scale: Tensor
    values: Tensor

    @staticmethod
    def of(weight: Tensor) -> "Int8":
        tensor = Tensor._make_wrapper_subclass(Int8, weight.shape, dtype=weight.dtype)
        tensor.scale = weight.abs().amax(dim=1, keepdim=True) / 127
        tensor.values = (weight / tensor.scale).round().to(torch.int8)
        return tensor

    def dequantize(self) -> Tensor:
        return self.values * self.scale

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            tensor = Tensor._make_wrapper_subclass(cls, args[0].shape, dtype=args[0].dtype)
            tensor.scale, tensor.values = args[0].scale, args[0].values
            return tensor
        raise NotImplementedError(f"{func} of Int8")


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), CosineLinear(8, 4)).eval()


def reloaded() -> nn.Sequential:
    buffer = io.BytesIO()
    torch.save(model(), buffer)
    buffer.seek(0)
    loaded: nn.Sequential = torch.load(buffer, weights_only=False)
    return loaded


@pytest.mark.parametrize("origin", [model, reloaded, lambda: copy.deepcopy(model())], ids=["new", "pickled", "copied"])
def test_an_adapter_is_stopped_when_it_is_made(origin: Any) -> None:
    owner = origin()
    with pytest.raises(InputError, match=r"Lora cannot wrap a CosineLinear, expected a linear layer: .*exclude_"):
        owner[2] = Lora(owner[2])
    assert type(owner[2]) is CosineLinear
    owner[0] = Lora(owner[0])  # the layers before it are free
    assert owner(torch.randn(3, 8)).isfinite().all()


def test_a_quantiser_is_stopped_when_it_takes_the_place() -> None:
    owner = model()
    for name, layer in list(owner.named_children())[:1]:
        setattr(owner, name, QuantisedLinear.from_float(layer))
    with pytest.raises(InputError, match=r"QuantisedLinear cannot replace the CosineLinear '2'.*exclude='2'"):
        setattr(owner, "2", QuantisedLinear.from_float(owner[2]))
    assert type(owner[2]) is CosineLinear


def test_a_quantised_weight_is_read() -> None:
    owner, x = model(), torch.randn(5, 8)
    exact = copy.deepcopy(owner)
    owner[2].weight = nn.Parameter(Int8.of(owner[2].weight.detach()), requires_grad=False)
    exact[2].weight.data = owner[2].weight.dequantize()
    assert torch.equal(owner(x), exact(x))
    assert torch.equal(owner[2].stock_weight(), exact[2].stock_weight())


def test_what_is_no_mistake_passes() -> None:
    owner, x = model(), torch.randn(3, 8)
    head, expected = owner[2], owner(x)
    owner[2] = nn.Sequential(nn.Dropout(0.5), head).eval()
    assert torch.equal(owner(x), expected)
    owner[2] = head
    owner[2] = torch.compile(head, backend="eager")
    owner[2] = CosineLinear(8, 4, kappa=9.0)
    owner[2].weight = head.weight
    owner[2] = nn.Linear(8, 4, bias=False)  # a softmax, by the user's own hand
    assert type(owner[2]) is nn.Linear
    conv = nn.Sequential(CosineConv1x1(8, 4))
    conv[0] = CosineConv1x1(8, 4)
