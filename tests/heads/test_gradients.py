"""Gradients of the head's own backward pass where a layer of plain operations gives them, too."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from cosify.functional.scaled_cosine import kappa_times_cosine
from cosify.heads import CosineLinear

POLICIES = ["ls", "trainable", 20.0]
every_policy = pytest.mark.parametrize("kappa", POLICIES, ids=str)


def made(kappa: float | str) -> tuple[CosineLinear, Tensor, Tensor]:
    torch.manual_seed(0)
    return CosineLinear(8, 5, kappa=kappa).double(), torch.randn(6, 8, dtype=torch.float64), torch.arange(6) % 5


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 6])
@pytest.mark.parametrize("scale", [1.0, 1e20])
def test_first_and_second_derivatives(size: int, scale: float) -> None:
    """For one kappa and for one a sample, and for weights that are divided before the product."""
    head, x, _ = made(20.0)
    kappa = torch.linspace(3.0, 9.0, size, dtype=torch.float64)

    def logits(x: Tensor, weight: Tensor, kappa: Tensor) -> Tensor:
        return kappa_times_cosine(x, scale * weight, lambda _: kappa, scanned=False)

    inputs = (x.requires_grad_(), head.weight.detach().requires_grad_(), kappa.requires_grad_())
    assert torch.autograd.gradcheck(logits, inputs)
    assert torch.autograd.gradgradcheck(logits, inputs)


PATHS: dict[str, Callable[[CosineLinear, Tensor], Tensor]] = {
    "its own weight": lambda head, x: head(head.weight),
    "the weight and more": lambda head, x: head(head.weight + x[:5]),
    "prototypes of the features": lambda head, x: torch.func.functional_call(head, {"weight": x.roll(1, 0)[:5]}, (x,)),
}


@pytest.mark.parametrize("name", PATHS)
def test_one_input_may_depend_on_another(name: str) -> None:
    head, x, labels = made(20.0)
    x.requires_grad_()
    wanted = x if name.startswith("prototypes") else head.weight
    found = []
    for create_graph in (False, True):
        logits = PATHS[name](head, x)
        (gradient,) = torch.autograd.grad(
            F.cross_entropy(logits, labels[: len(logits)]), wanted, create_graph=create_graph
        )
        found.append(gradient.detach())
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("create_graph", [False, True])
def test_hooks_of_the_inputs_run_once(create_graph: bool) -> None:
    head, x, labels = made(20.0)
    calls: list[str] = []
    x.requires_grad_().register_hook(lambda gradient: calls.append("x"))
    head.weight.register_hook(lambda gradient: calls.append("weight"))
    loss = F.cross_entropy(head(x), labels)
    torch.autograd.grad(loss, [x, head.weight], create_graph=create_graph)
    assert sorted(calls) == ["weight", "x"]


@every_policy
def test_logits_may_be_changed_in_place(kappa: float | str) -> None:
    head, x, labels = made(kappa)
    gradients = []
    for in_place in (False, True):
        logits = head(x)
        if in_place:
            logits[:, :2] = -1e4
        else:
            logits = torch.cat([torch.full_like(logits[:, :2], -1e4), logits[:, 2:]], dim=1)
        gradients += torch.autograd.grad(F.cross_entropy(logits, labels), head.weight)
    torch.testing.assert_close(*gradients)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`")  # torch's own, at its first tangent
def test_tangents_of_kappa_alone() -> None:
    head, x, _ = made("trainable")
    assert head.log_kappa is not None
    with forward_ad.dual_level():
        tangent = torch.ones_like(head.log_kappa)
        dual = forward_ad.make_dual(head.log_kappa.detach(), tangent)
        logits = torch.func.functional_call(head, {"log_kappa": dual}, (x,))
        value, found = forward_ad.unpack_dual(logits)
    torch.testing.assert_close(found, value, rtol=1e-6, atol=1e-6)  # of exp(kappa') times a cosine: itself


@every_policy
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_repeated_pass_is_recorded_once(kappa: float | str, reentrant: bool) -> None:
    found = []
    for repeated in (False, True):
        head, x, labels = made(kappa)
        x.requires_grad_()
        for _ in range(2):
            logits = checkpoint(head, x, use_reentrant=reentrant) if repeated else head(x)
            F.cross_entropy(logits, labels).backward()
        found.append((dict(head.named_buffers()), head.weight.grad, x.grad))
    torch.testing.assert_close(found[0], found[1])


@every_policy
def test_a_backward_pass_within_autocast_is_float32(kappa: float | str) -> None:
    gradients = []
    for inside in (False, True):
        head, x, labels = made(kappa)
        head.float()
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            F.cross_entropy(head(x.float()), labels).backward()
        gradients.append(head.weight.grad)
    torch.testing.assert_close(*gradients)


def test_the_largest_numbers_have_a_direction() -> None:
    head = CosineLinear(4, 3, kappa=9.0)
    x = torch.full((2, 4), 3e38)
    x[0, 0] = -3e38
    torch.testing.assert_close(head(x), head(x / 1e38), rtol=1e-4, atol=1e-4)
    assert head(x).abs().min() > 0
