from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import timm
import torch

import cosify
from cosify.models.stage_freezing import freeze_stages
from cosify.training import TrainArguments
from cosify.training.optimizer import fused, make_optimizer, make_schedule


def model_with(kappa: str) -> torch.nn.Module:
    return cosify.convert(timm.create_model("test_resnet", num_classes=5), kappa=kappa)


def test_sgd_is_nesterov_and_vectors_do_not_decay() -> None:
    model = model_with("trainable")
    optimizer = make_optimizer(TrainArguments(weight_decay=0.01, momentum=0.8), model)
    assert isinstance(optimizer, torch.optim.SGD)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert all(group["nesterov"] and group["momentum"] == 0.8 for group in optimizer.param_groups)
    assert decay[id(model.get_classifier().weight)] == 0.01
    assert decay[id(model.get_classifier().log_kappa)] == 0.0
    assert len(decay) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sgd", {"fused": True}), ("AdamW", {"fused": True}), ("lookahead_sgd", {"fused": True}), ("lamb", {}), ("?", {})],
)
def test_steps_are_fused_on_cuda_alone(name: str, expected: dict[str, bool]) -> None:
    args = TrainArguments(optimizer=name)
    assert fused(args, torch.device("cuda")) == expected
    assert fused(args, torch.device("cpu")) == fused(args, torch.device("mps")) == {}
    assert fused(replace(args, mixed_precision="fp16"), torch.device("cuda")) == {}


def test_warm_up_then_cosine_to_zero() -> None:
    args = TrainArguments(epochs=10, warmup_epochs=2, lr=0.4)
    optimizer = make_optimizer(args, model_with("ls"))
    schedule = make_schedule(args, optimizer, steps_per_epoch=5)
    rates = [optimizer.param_groups[0]["lr"]]
    for step in range(1, 51):
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(0.04)
    assert all(later > earlier for earlier, later in pairwise(rates[:10]))
    assert max(rates) <= 0.4
    assert rates[25] == pytest.approx(0.2)
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert rates[50] == pytest.approx(0.0)


@pytest.mark.parametrize("schedule", ["cosine", "step", "poly", "constant"])
@pytest.mark.parametrize("blocks", ["all", "head"])
def test_the_head_has_a_rate_of_its_own(schedule: Any, blocks: Any) -> None:
    model = model_with("trainable")
    freeze_stages(model, blocks)
    args = TrainArguments(epochs=4, warmup_epochs=1, lr=0.1, schedule=schedule, head_lr=10.0, weight_decay=0.01)
    plain, scaled = make_optimizer(replace(args, head_lr=1.0), model), make_optimizer(args, model)
    head = {id(parameter) for parameter in model.get_classifier().parameters()}
    for optimizer in (plain, scaled):
        schedule_of = make_schedule(args, optimizer, steps_per_epoch=5)
        for step in range(9):
            schedule_of.step_update(step)
    one, other = (
        {id(each): (group["lr"], group["weight_decay"]) for group in each_of.param_groups for each in group["params"]}
        for each_of in (plain, scaled)
    )
    assert one.keys() == other.keys()
    for key, (lr, decay) in one.items():
        assert other[key] == (pytest.approx(10 * lr if key in head else lr), decay)
    assert len(plain.param_groups) == 2
    assert len(scaled.param_groups) == (4 if blocks == "all" else 2)


def test_unknown_optimizer() -> None:
    with pytest.raises(
        ValueError, match=r"optimizer 'foo' cannot be built .*, expected one of timm.optim.list_optimizers"
    ):
        make_optimizer(TrainArguments(optimizer="foo"), model_with("ls"))
    for name in ("adahessian", "lookahead_adahessian"):
        with pytest.raises(ValueError, match=f"optimizer '{name}' needs second derivatives, expected one of first"):
            make_optimizer(TrainArguments(optimizer=name), model_with("ls"))
