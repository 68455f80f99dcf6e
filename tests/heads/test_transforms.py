"""torch.fx, torch.func and TorchScript meet a head: it stays one node, is differentiated, or refuses in clear words."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from cosify.errors import InputError
from cosify.functional import checks
from cosify.heads import POLICIES, CosineConv1x1, CosineLinear

every_policy = pytest.mark.parametrize("kappa", [*POLICIES, 12.5], ids=str)
every_mode = pytest.mark.parametrize("training", [False, True])


def model(kappa: float | str, conv: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    head = CosineConv1x1(8, 4, kappa=kappa) if conv else CosineLinear(8, 4, kappa=kappa)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Identity() if conv else nn.Flatten(), head)


def images(num: int = 6) -> Tensor:
    return torch.randn(num, 3, 5, 5, generator=torch.Generator().manual_seed(1))


@every_policy
@every_mode
@pytest.mark.parametrize("conv", [False, True])
def test_symbolic_trace_keeps_the_head_whole(kappa: float | str, training: bool, conv: bool) -> None:
    eager = model(kappa, conv).train(training)
    traced = torch.fx.symbolic_trace(copy.deepcopy(eager))
    assert type(traced.get_submodule("3")) is type(eager[3])
    for _ in range(2):
        assert torch.equal(traced(images()), eager(images()))
    assert torch.equal(traced.get_submodule("3").kappa, eager[3].kappa)


def test_feature_extractor_of_torchvision() -> None:
    eager = model("ls").eval()
    assert get_graph_node_names(eager)[1][-2:] == ["2", "3"]
    features = create_feature_extractor(eager, ["2", "3"])(images())
    assert torch.equal(features["3"], eager(images()))
    assert torch.equal(features["2"], eager[:3](images()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch.ao is on its way out
def test_quantised_by_fx_the_head_stays_float() -> None:
    eager, x = model("ls").eval(), images()
    prepared = quantize_fx.prepare_fx(copy.deepcopy(eager), get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    head = prepared.get_submodule("3")
    assert type(head) is CosineLinear
    assert torch.equal(head.weight, eager[3].weight)


def test_a_head_alone_has_no_graph() -> None:
    with pytest.raises(InputError, match=r"torch.fx cannot trace a CosineLinear alone.*trace the model that holds it"):
        torch.fx.symbolic_trace(CosineLinear(8, 4))


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning"
)  # both are on their way out
def test_torchscript_is_refused_and_tracing_is_not() -> None:
    eager = model("ls").eval()
    with pytest.raises(InputError, match=r"torch.jit.script cannot compile .* of a CosineLinear; use torch.jit.trace"):
        torch.jit.script(eager)
    torch.testing.assert_close(torch.jit.trace(eager, images())(images(3)), eager(images(3)))  # up to rounding


@every_policy
@every_mode
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch has no batching rule for clamp_
def test_per_sample_gradients(kappa: float | str, training: bool) -> None:
    """vmap of grad gives each sample's own gradient, with its own kappa; the running means are left alone."""
    head, x, labels = CosineLinear(16, 7, kappa=kappa).train(training), torch.randn(5, 16), torch.arange(5)
    before = {name: value.clone() for name, value in head.named_buffers()}

    def loss(parameters: dict[str, Tensor], x: Tensor, label: Tensor) -> Tensor:
        logits: Tensor = torch.func.functional_call(head, parameters, (x.unsqueeze(0),))
        return F.cross_entropy(logits, label.unsqueeze(0))

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(dict(head.named_parameters()), x, labels)
    assert all(torch.equal(value, before[name]) for name, value in head.named_buffers())
    for number in range(5):
        alone = copy.deepcopy(head)
        F.cross_entropy(alone(x[number : number + 1]), labels[number : number + 1]).backward()
        for name, parameter in alone.named_parameters():
            torch.testing.assert_close(gradients[name][number], parameter.grad, rtol=1e-4, atol=1e-5)


def test_values_are_looked_at_again_after_a_transform() -> None:
    torch.func.vmap(lambda x: x)(torch.ones(2))
    assert checks.values_visible(torch.ones(2))
    with pytest.raises(ValueError, match="embedding holds NaN"):
        CosineLinear(2, 3)(torch.full((1, 2), torch.nan))
