"""How often the host looks at a value of an accelerator in one step, forward and backward, of every policy and route.

On a stand-in for an accelerator, see tests/no_float64.py, which also refuses float64.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from cosify.functional import float64, ls
from cosify.heads import POLICIES, CosineHead, CosineLinear, CosineSoftmaxLoss
from cosify.heads.kappa_watch import KappaWatch
from tests import geometry, no_float64
from tests.no_float64 import DEVICE, StandIn, stand_in_device

LOOKS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero")
looks: list[str] = []
computed = no_float64.computed


def watched(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Note what on a real accelerator would wait for it: a value, a number of true ones, a copy to the CPU."""
    name = func.overloadpacket.__name__
    there = [each for each in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(each, StandIn)]
    indices = args[1] if name in ("index", "index_put_", "_index_put_impl_") else ()
    masks = any(each is not None and each.dtype == torch.bool for each in indices)
    leaves = name == "_to_copy" and bool(there) and torch.device(kwargs.get("device") or DEVICE).type == "cpu"
    if there and (name in LOOKS or masks or leaves):
        looks.append(name)
    return computed(func, args, kwargs)


def tolist(self: StandIn) -> Any:
    looks.append("tolist")
    return self.inner.tolist()


@contextmanager
def route(name: str) -> Iterator[None]:
    """Let the search take all candidates, or prove that it need not."""
    with patch.dict(ls.GRID_WORK, {"cuda": 0 if name == "certified" else 1 << 62}):
        yield


def step(kind: str, kappa: float | str, problem: tuple[Tensor, Tensor]) -> int:
    """Return how many looks the second step of a head or loss takes; the first knows no kappa to start from."""
    found, expected = ([*steps(kind, kappa, problem, device)] for device in (DEVICE, torch.device("cpu")))
    for (values, _), (others, _) in zip(found, expected, strict=True):
        for value, other in zip(values, others, strict=True):  # what it computes there is right as well
            torch.testing.assert_close(value.inner, other, rtol=1e-4, atol=1e-6)
    return found[-1][1]


def steps(
    kind: str, kappa: float | str, problem: tuple[Tensor, Tensor], device: torch.device
) -> Iterator[tuple[list[Any], int]]:
    """Yield loss and gradients of two steps, and how many looks each takes."""
    embedding, weight = problem
    head: CosineHead = CosineLinear(weight.shape[1], len(weight), kappa=kappa, device=device)
    with torch.no_grad():
        head.weight.copy_(weight.to(device))
    labels = (torch.arange(len(embedding)) % len(weight)).to(device)
    loss_of = CosineSoftmaxLoss(head, 0.2, label_smoothing=0.1) if kind == "loss" else None
    for _ in range(2):
        looks.clear()
        head.weight.grad = None
        x = embedding.to(device, copy=True).requires_grad_()
        loss = F.cross_entropy(head(x), labels) if loss_of is None else loss_of(x, labels)
        loss.backward()
        yield [loss.detach(), x.grad, head.weight.grad], len(looks)


def watch(problem: tuple[Tensor, Tensor]) -> tuple[int, int]:
    """Return how many looks two steps under a `KappaWatch` take beside the head's own, and how many its reading."""
    embedding, weight = problem
    head = CosineLinear(weight.shape[1], len(weight), device=DEVICE)
    watch = KappaWatch([head])
    with route("whole"):
        looks.clear()
        for _ in range(2):
            head(embedding.to(DEVICE))
            watch.look()
    in_steps = len(looks)
    assert watch.read()["kappa_mean"] > 0
    return in_steps, len(looks) - in_steps


def main() -> None:
    """Print the looks of each case."""
    float64.has_float64 = lambda device: device.type != DEVICE.type
    problems = {
        "planted": geometry.planted(32, 300, 64, 40.0, seed=1),
        "random": geometry.random(32, 300, 64, seed=1),
        "settled": geometry.planted(64, 1000, 128, 40.0, seed=1),
        "few left": geometry.planted(64, 1000, 128, 40.0, seed=1),
    }
    problems["few left"][0][:3] = geometry.random(3, 1000, 128, seed=2)[0]
    found = {}
    with stand_in_device(), patch.object(no_float64, "computed", watched), patch.object(StandIn, "tolist", tolist):
        for kind in ("head", "loss"):
            for kappa in (*POLICIES, 20.0):
                with route("whole"):
                    found[f"{kind}, {kappa}"] = step(kind, kappa, problems["planted"])
            for name, problem in problems.items():
                with route("certified"):
                    found[f"{kind}, certified, {name}"] = step(kind, "ls", problem)
        found["watch"], found["reading the watch"] = watch(problems["planted"])
        with route("certified"):  # the looks are seen at all
            looks.clear()
            bool((torch.ones(2).to(DEVICE) > 0).any())
            found["one look"] = len(looks)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
