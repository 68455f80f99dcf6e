"""One rank of the class-parallel test; the same functions serve the one process that it is compared with."""

import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from cosify.functional.search import certified
from cosify.heads import (
    ClassParallelCosineLinear,
    CosineHead,
    CosineSoftmaxLoss,
    load_class_parallel,
    save_class_parallel,
)

IN_FEATURES = 16
NUM_SEED_CLASSES = 2500  # three blocks of INIT_BLOCK
LEARNING_RATE = 0.3


@dataclass(frozen=True)
class Case:
    """How a head is trained."""

    kappa: float | str = "ls"
    num_classes: int = 23
    steps: int = 3
    loss: dict[str, Any] = field(default_factory=dict)
    ignored: bool = False
    weighted: bool = False
    accelerator: bool = False  # the processes search as they do where looking at a value waits


CASES = {
    "long": Case(steps=20, loss={"margin": 0.35}),
    "blocks": Case(num_classes=301, steps=3, loss={"margin": 0.35, "chunk": 64}),
    "accelerator": Case(num_classes=301, steps=6, loss={"chunk": 64}, accelerator=True),
    "ml": Case("ml"),
    "rule": Case("rule"),
    "trainable": Case("trainable"),
    "adacos-dynamic": Case("adacos-dynamic"),
    "fixed": Case(20.0),
    "angular": Case(loss={"angular_margin": 0.5}),
    "smooth": Case(loss={"label_smoothing": 0.1, "margin": 0.2}),
    "ignored": Case(ignored=True),
    "weighted": Case(ignored=True, weighted=True, loss={"margin": 0.35, "label_smoothing": 0.1}),
}

Batch = tuple[Tensor, Tensor, Tensor | None]


def backbone() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, IN_FEATURES), nn.Tanh())


def batch(case: Case, step: int, ranks: Sequence[int]) -> Batch:
    """Return the samples of some ranks, one behind the other; rank r has 5 + r."""
    parts = []
    for rank in ranks:
        generator = torch.Generator().manual_seed(100 * step + rank)
        x = torch.randn(5 + rank, 16, generator=generator)
        labels = torch.randint(case.num_classes, (5 + rank,), generator=generator)
        if case.ignored:
            labels[: 1 + rank] = -100
        weights = torch.rand(5 + rank, generator=generator)
        weights[-1] = 0.0  # counts as little as a sample without a label
        parts.append((x, labels, weights))
    x, labels, weights = (torch.cat(values) for values in zip(*parts, strict=True))
    return x, labels, weights if case.weighted else None


def train(case: Case, model: nn.Module, head: CosineHead, ranks: Sequence[int], steps: int) -> dict[str, Any]:
    """Take some steps on the samples of `ranks`; return the first step's gradients and all that came out."""
    loss_of = CosineSoftmaxLoss(head, **case.loss)
    optimizer = torch.optim.SGD([*model.parameters(), *head.parameters()], lr=LEARNING_RATE)
    result: dict[str, Any] = {"kappas": [], "losses": []}
    for step in range(steps):
        x, labels, weights = batch(case, step, ranks)
        optimizer.zero_grad()
        loss = loss_of(model(x), labels, weights)
        loss.backward()
        if step == 0:
            result["backbone_gradient"] = [whole(parameter.grad) for parameter in model.parameters()]
            result["gradient"] = {name: value.grad.clone() for name, value in head.named_parameters()}
        optimizer.step()
        result["kappas"].append(head.last_kappa)
        result["losses"].append(loss.detach())
    result["backbone"] = [whole(parameter.detach()) for parameter in model.parameters()]
    result["head"] = head.state_dict()
    return result


def whole(values: Tensor) -> Tensor:
    return values.full_tensor() if isinstance(values, DTensor) else values.clone()


def start_file(folder: Path, num_classes: int) -> Path:
    return folder / f"start{num_classes}.safetensors"


def saved_file(folder: Path, world_size: int) -> Path:
    return folder / f"saved_by_{world_size}" / "head.safetensors"


def loaded_head(folder: Path, case: Case, **settings: Any) -> ClassParallelCosineLinear:
    head = ClassParallelCosineLinear(IN_FEATURES, case.num_classes, kappa=case.kappa, **settings)
    load_class_parallel(head, start_file(folder, case.num_classes))
    return head


def message_of(error: type[Exception], function: Any, *arguments: Any) -> str:
    try:
        function(*arguments)
    except error as problem:
        return str(problem)
    return "nothing was raised"


def accelerated(model: nn.Module) -> nn.Module:
    prepared: nn.Module = Accelerator(cpu=True).prepare(model)
    return prepared


def sharded(model: nn.Module) -> nn.Module:
    return fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))


def seeded_weight() -> Tensor:
    torch.manual_seed(7)
    return ClassParallelCosineLinear(4, NUM_SEED_CLASSES).weight.detach()


def sampled(folder: Path, rank: int) -> dict[str, Any]:
    """One step on a half of the classes; the gradients, and the kappa that all ranks should agree on."""
    case = Case(num_classes=301)
    head = loaded_head(folder, case, sample_fraction=0.5)
    torch.manual_seed(rank)
    x, labels, _ = batch(case, 0, [rank])
    x.requires_grad_()
    loss = CosineSoftmaxLoss(head)(x, labels)
    loss.backward()
    return {"loss": loss.detach(), "kappa": head.last_kappa, "gradient": head.weight.grad, "embedding": x.grad}


def few(folder: Path, samples_of: Sequence[int], rank: int | None) -> dict[str, Any]:
    """One step where a rank has few samples or none; without a rank, of all samples by one process."""
    head = loaded_head(folder, Case())
    generator = torch.Generator().manual_seed(1)
    x, labels = torch.randn(sum(samples_of), IN_FEATURES, generator=generator), torch.arange(sum(samples_of))
    own = slice(None) if rank is None else slice(sum(samples_of[:rank]), sum(samples_of[: rank + 1]))
    loss = CosineSoftmaxLoss(head)(x[own].requires_grad_(), labels[own])
    loss.backward()
    return {"loss": loss.detach(), "kappa": head.last_kappa}


def refused_saves(folder: Path, head: ClassParallelCosineLinear, world_size: int) -> list[str]:
    """Save where it cannot work: below a file, and over a folder."""
    blocked = folder / f"blocked{world_size}"
    return [
        message_of(OSError, save_class_parallel, head, blocked / "file" / "head.safetensors"),
        message_of(OSError, save_class_parallel, head, blocked / "folder"),
    ]


def main(folder_name: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    folder = Path(folder_name)
    result: dict[str, Any] = {}
    for name, case in CASES.items():
        model = DistributedDataParallel(backbone())
        head = loaded_head(folder, case)
        with patch.object(certified, "READ_FREELY", () if case.accelerator else certified.READ_FREELY):
            result[name] = train(case, model, head, [rank], case.steps)
        if name == "long":
            save_class_parallel(head, saved_file(folder, world_size))
            result["refused_saves"] = refused_saves(folder, head, world_size)
            result["predicted"] = head.predict(model(batch(case, 99, [rank])[0]))
            result["no_samples"] = head.predict(torch.ones(rank, IN_FEATURES))
    for name, wrap in (("accelerate", accelerated), ("fsdp", sharded)):
        result[name] = train(CASES["long"], wrap(backbone()), loaded_head(folder, CASES["long"]), [rank], 1)
    loaded = ClassParallelCosineLinear(IN_FEATURES, 23)
    load_class_parallel(loaded, saved_file(folder, 2))  # by as many processes, or by another number
    result["loaded"] = copy.deepcopy(loaded).state_dict()  # as an EMA copies it: the group cannot be pickled
    other = ClassParallelCosineLinear(IN_FEATURES, 24)
    result["wrong_classes"] = message_of(ValueError, load_class_parallel, other, saved_file(folder, 2))
    result["too_few_classes"] = message_of(ValueError, ClassParallelCosineLinear, IN_FEATURES, world_size - 1)
    result["seeded"] = seeded_weight()
    result["sampled"] = sampled(folder, rank)
    for sizes in ((1,), (0, 1), (0,)):
        result[f"few {sizes}"] = few(folder, [*sizes, *[0] * world_size][:world_size], rank)
    torch.save(result, folder / f"rank{rank}of{world_size}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
