"""Under DDP and FSDP2 in a process group of one, a model with a cosine head trains as without."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from cosify.heads import CosineLinear
from tests import geometry
from tests.gpu.device import DEVICE, distance, on_gpu

pytestmark = [
    *on_gpu,
    pytest.mark.usefixtures("process_group"),
    # torch 2.14 advises against writing into a view, and logits are one of the rows'.
    pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view:UserWarning"),
]


def network(kappa: float | str) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), CosineLinear(32, 20, kappa=kappa)).to(DEVICE)


def by_fsdp(model: nn.Module) -> nn.Module:
    return fully_shard(model, mesh=init_device_mesh(DEVICE.type, (1,)))


def whole(values: Tensor | None) -> Tensor:
    assert values is not None
    return values.full_tensor() if isinstance(values, DTensor) else values


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {"ddp": DistributedDataParallel, "fsdp": by_fsdp}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("kappa", ["ls", "trainable", 16.0], ids=str)
def test_steps_equal_those_of_the_bare_model(wrapper: str, kappa: float | str) -> None:
    plain, inner = network(kappa), network(kappa)
    wrapped = WRAPPERS[wrapper](inner)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (plain, wrapped)]
    losses = []
    for step in range(3):
        x = geometry.random(24, 1, 16, seed=step)[0].to(DEVICE)
        labels = (torch.arange(24, device=DEVICE) + step) % 20
        for model, optimizer in zip((plain, wrapped), optimizers, strict=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), labels)
            loss.backward()
            losses.append(loss.detach())
        for (name, value), (_, other) in zip(inner.named_parameters(), plain.named_parameters(), strict=True):
            assert distance(whole(value.grad), other.grad) <= 1e-5, name
        for optimizer in optimizers:
            optimizer.step()
        assert distance(losses[-1], losses[-2]) <= 1e-5
        assert distance(inner[2].last_kappa, plain[2].last_kappa) <= 1e-5
        assert distance(inner[2].kappa, plain[2].kappa) <= 1e-5
        assert distance(inner[2].embedding_norm, plain[2].embedding_norm) <= 1e-5
    for (name, value), (_, other) in zip(inner.named_parameters(), plain.named_parameters(), strict=True):
        assert distance(whole(value), other) <= 1e-5, name
