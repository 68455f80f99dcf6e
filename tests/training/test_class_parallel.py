"""Runs whose classes are spread over processes equal those of one process with a plain head."""

import gc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

import cosify
from cosify.console.training import export
from cosify.heads import ClassParallelCosineLinear, CosineLinear
from cosify.settings.training import ELEMENTWISE
from cosify.training import TrainArguments, evaluate, read_metrics, train
from cosify.training.class_parallel import class_parallel_heads, clip_gradients, spread_classes
from cosify.training.optimizer import make_optimizer
from cosify.training.sharding import check_sharding
from tests.training import distributed_worker
from tests.training.distributed_worker import ARGUMENTS
from tests.training.records import recorded
from tests.training.test_distributed import held, two_ranks

OF_KAPPA = ("histogram", "median", "p10", "p90", "low_edge", "high_edge")
SPREAD = replace(ARGUMENTS, class_parallel=True)


def alone(folder: Path, name: str, stop_at: int = 0) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    distributed_worker.run(folder, name, world_size=1, stop_at=stop_at)
    gc.collect()  # a run that was stopped lets go of its folder
    return {} if stop_at else held(folder, name)


@pytest.mark.slow
@pytest.mark.parametrize(("plain", "spread"), [("accumulate", "spread-accumulate"), ("margin", "spread-margin")])
def test_two_ranks_equal_one_with_a_plain_head(plain: str, spread: str, tmp_path: Path) -> None:
    two = two_ranks(tmp_path, spread)
    one, first, second = alone(tmp_path / "one", plain), held(two, spread), held(two, spread, rank=1)
    assert len(one["steps"]) == 20
    together = first["steps"] + second["steps"]
    assert together[:, 2].tolist() == one["steps"][:, 2].tolist()
    torch.testing.assert_close(together[:, 0] / 64, one["steps"][:, 0] / 64, rtol=1e-5, atol=0)
    for one_record, record in zip(read_metrics(tmp_path / "one" / plain), read_metrics(two / spread), strict=True):
        for key in ("kappa_mean", "train_loss", "test_loss", "test_accuracy", "mean_angle_deg"):
            assert record[key] == pytest.approx(one_record[key], rel=1e-5), key
        for key in OF_KAPPA:
            assert record[f"kappa_{key}"] == one_record[f"kappa_{key}"], key
    assert first["evaluation"] == second["evaluation"]
    assert list(first["state"]) == list(one["state"]), "the model of the main process is no plain one"
    for key, value in one["state"].items():
        # Statistics of one rank's samples in the plain run, of all in the other: here they are the same.
        torch.testing.assert_close(first["state"][key], value, rtol=1e-4, atol=1e-5, msg=key)
    torch.testing.assert_close(second["state"]["fc.weight"], first["state"]["fc.weight"][5:], rtol=0, atol=0)


def test_one_process_needs_no_launcher_and_exports_a_stock_folder(tmp_path: Path) -> None:
    args = replace(SPREAD, epochs=1, batch_size=32)
    result = train(replace(args, output=str(tmp_path / "spread")))
    plain = train(replace(args, class_parallel=False, output=str(tmp_path / "plain")))
    assert type(result.model.get_submodule("fc")) is CosineLinear
    assert result.evaluation.num_samples == 100
    assert result.evaluation.loss == pytest.approx(plain.evaluation.loss, rel=1e-5)
    export(result)
    opened = cosify.load(result.folder.export).eval()
    images = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(opened(images), result.model.eval()(images), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spread-resumed", "spread-trainable"])
def test_a_run_resumes_to_the_bit(name: str, tmp_path: Path) -> None:
    two = two_ranks(tmp_path, name, f"part/{name}", f"part/{name}")
    assert recorded(two / "part" / name) == recorded(two / name)
    for rank in (0, 1):
        whole, rest = held(two, name, rank), held(two / "part", name, rank)
        assert (len(whole["steps"]), len(rest["steps"])) == (20, 20 - 12), "it went on from elsewhere than step 12"
        torch.testing.assert_close(rest["steps"], whole["steps"][12:], rtol=0, atol=0)
        assert rest["evaluation"] == whole["evaluation"]
        for key, value in whole["state"].items():
            torch.testing.assert_close(rest["state"][key], value, rtol=0, atol=0, msg=key)


@pytest.mark.slow
def test_another_number_of_processes_goes_on(tmp_path: Path) -> None:
    name = "spread-resumed"
    two = two_ranks(tmp_path, name)
    alone(tmp_path / "part", name, stop_at=13)
    rest, whole = held(two_ranks(tmp_path / "part", name), name), held(two, name)
    assert len(rest["steps"]) == 20 - 12
    (newest,) = (path for path in (two / name / "checkpoints").iterdir() if path.is_dir())
    saved = load_file(newest / "model.safetensors")
    assert saved["model.fc.weight"].shape == (10, 16), "the checkpoint lacks the rows of other processes"
    (rows,) = (
        state["exp_avg"]
        for state in torch.load(newest / "optimizer.bin", weights_only=True)["state"].values()
        if state["exp_avg"].shape[:1] == (10,)
    )
    assert (rows != 0).any(dim=1).all()
    torch.testing.assert_close(rest["steps"][:, 0], whole["steps"][12:, 0], rtol=1e-5, atol=1e-5)
    for key, value in whole["state"].items():
        torch.testing.assert_close(rest["state"][key], value, rtol=1e-3, atol=1e-4, msg=key)


def test_a_spread_network_is_evaluated_as_a_plain_one() -> None:
    torch.manual_seed(0)
    model = cosify.convert(timm.create_model("test_resnet", num_classes=5))
    frozen = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    images, labels = torch.randn(6, 3, 32, 32), torch.arange(6) % 5
    batches = [(images[:4], labels[:4]), (images[4:], labels[4:])]
    plain = evaluate(model, batches, device=torch.device("cpu"))
    spread_classes(model)
    (head,) = class_parallel_heads(model).values()
    assert head.weight.shape == (5, head.in_features)
    assert not head.weight.is_meta
    model.train()
    for norm in frozen:
        norm.eval()
    found = evaluate(model, batches, device=torch.device("cpu"))
    assert model.training
    assert not any(norm.training for norm in frozen)
    assert (found.accuracy, found.num_samples) == (plain.accuracy, plain.num_samples)
    assert found.loss == pytest.approx(plain.loss, rel=1e-5)
    assert found.mean_angle_deg == pytest.approx(plain.mean_angle_deg, abs=1e-3)


def test_gradients_are_clipped_over_all_ranks() -> None:
    model = cosify.convert(timm.create_model("test_resnet", num_classes=5))
    spread_classes(model)
    ((_, head),) = class_parallel_heads(model).items()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    others = sum(parameter.numel() for parameter in model.parameters()) - head.weight.numel()
    clip_gradients(model, 1.0, lambda squares: squares + 4 * 7 * head.in_features)  # of 7 classes elsewhere
    assert head.weight.grad is not None
    expected = 1 / (others + 12 * head.in_features) ** 0.5
    assert head.weight.grad.flatten()[0].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_optimiser_gives_a_part_of_a_weight_the_steps_of_the_whole(name: str) -> None:
    rows, gradient = (torch.randn(256, 128, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    gradient[:128] -= (
        (gradient * rows).sum(1, keepdim=True)[:128] / rows[:128].square().sum(1, keepdim=True) * rows[:128]
    )

    def after_steps(part: slice) -> list[torch.Tensor]:
        model = nn.ParameterDict({"backbone": torch.ones(2, 3), "rows": rows[part].clone()})
        optimizer = make_optimizer(TrainArguments(optimizer=name), model)
        for step in range(1, 4):
            model["backbone"].grad, model["rows"].grad = torch.full((2, 3), 0.5 * step), gradient[part] * step
            optimizer.step()
        return [model["backbone"].detach(), model["rows"].detach()]

    whole, first, second = (after_steps(part) for part in (slice(None), slice(128), slice(128, None)))
    torch.testing.assert_close([whole[0], whole[0]], [first[0], second[0]])
    torch.testing.assert_close(whole[1], torch.cat([first[1], second[1]]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "linear"}, r"class_parallel is on with head linear, expected a cosine head; use head cos"),
        ({"mixup": 0.2}, r"mixup is 0.2 and cutmix 0.0 with class_parallel, .* drop class_parallel, or mixup"),
        ({"compile": True}, r"compile is on with class_parallel"),
        ({"optimizer": "lamb"}, r"optimizer is 'lamb', expected one of sgd, .* with class_parallel: .* as a whole"),
        ({"mixed_precision": "fp16"}, r"mixed_precision is 'fp16', expected bf16 or no with class_parallel"),
    ],
)
def test_what_does_not_work_with_it_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SPREAD, **settings)


def test_fsdp_is_refused() -> None:
    accelerator: Any = SimpleNamespace(distributed_type="FSDP", is_fsdp2=True)
    with pytest.raises(ValueError, match=r"class_parallel is on with FSDP, .* expected DDP; start without --use_fsdp"):
        check_sharding(SPREAD, accelerator)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_network_that_cannot_be_spread(frozen: bool) -> None:
    model = timm.create_model("test_resnet", num_classes=5)
    if frozen:
        cosify.convert(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("fc."))
    message = r"nothing trains beside the head" if frozen else r"needs one CosineLinear in a timm model, found \[\]"
    with pytest.raises(ValueError, match=message):
        spread_classes(model)
    assert not any(isinstance(module, ClassParallelCosineLinear) for module in model.modules())
