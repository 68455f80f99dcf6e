"""Stages of timm models, and that frozen ones do not move by a bit while the rest trains."""

import copy

import pytest
import timm
import torch
import torch.distributed as dist
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import cosify
from cosify.models.stage_freezing import Trainable, freeze_stages, keep_frozen_in_eval, stages

# Number of stages, and how the names in the first and the last of them begin.
STAGES = {
    "resnet18": (4, {"conv1", "bn1", "layer1"}, {"layer4"}),
    "resnet18_cifar": (4, {"conv1", "bn1", "layer1"}, {"layer4"}),
    "test_resnet": (4, {"conv1", "bn1", "layer1"}, {"layer4"}),
    "tf_efficientnet_lite0": (7, {"conv_stem", "bn1", "blocks.0"}, {"blocks.6", "conv_head", "bn2"}),
    "vit_tiny_patch16_224": (12, {"cls_token", "pos_embed", "patch_embed", "blocks.0"}, {"blocks.11", "norm"}),
    "convnext_atto": (4, {"stem", "stages.0"}, {"stages.3", "head.norm"}),
}
SETTINGS = {"vit_tiny_patch16_224": {"img_size": 32, "depth": 3}, "convnext_atto": {"drop_path_rate": 0.5}}
CHOICES = [(name, choice) for name in ("test_resnet", *SETTINGS, "tf_efficientnet_lite0") for choice in ("head", 1)]
CHOICES += [("resnet18", 2), ("test_resnet", 4)]


def build(name: str = "test_resnet", kappa: float | str = "ls", **settings: object) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **{**SETTINGS.get(name, {}), **settings})
    return cosify.convert(model, kappa=kappa)


def head_parameters(model: nn.Module) -> set[str]:
    return {f"{path}.{name}" for path, head in cosify.find_heads(model).items() for name, _ in head.named_parameters()}


def trained_parameters(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def train_steps(model: nn.Module, num_steps: int = 2, forward: nn.Module | None = None) -> dict[str, Tensor]:
    """Train with weight decay and momentum; return the state before."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    forward = model if forward is None else forward
    optimizer = create_optimizer_v2(forward, opt="sgd", lr=0.1, weight_decay=0.1, momentum=0.9)
    forward.train()
    keep_frozen_in_eval(forward)
    for seed in range(num_steps):
        images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        F.cross_entropy(forward(images), torch.arange(8) % 5).backward()
        optimizer.step()
    return before


def moved(before: dict[str, Tensor], model: nn.Module) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}


@pytest.mark.parametrize("name", STAGES)
def test_number_and_ends_of_the_stages(name: str) -> None:
    num_stages, first, last = STAGES[name]
    with torch.device("meta"):
        found = stages(timm.create_model(name))
    assert len(found) == num_stages
    for names, beginnings in ((found[0], first), (found[-1], last)):
        assert all(any(parameter.startswith(start) for start in beginnings) for parameter in names)
        assert all(any(parameter.startswith(start) for parameter in names) for start in beginnings)


@pytest.mark.parametrize("name", [*timm.list_models("test_*"), "cait_xxs24_224", "levit_128s", "volo_d1_224"])
def test_stages_and_head_hold_every_parameter_once(name: str) -> None:
    with torch.device("meta"):
        model = cosify.convert(timm.create_model(name, num_classes=10), kappa="trainable")
        found = stages(model)
    assert len(found) >= 2
    names = [*(parameter for stage in found for parameter in stage), *head_parameters(model)]
    assert sorted(names) == sorted(parameter for parameter, _ in model.named_parameters())
    assert all(stage for stage in found)


@pytest.mark.parametrize(("name", "trainable"), CHOICES)
def test_frozen_part_does_not_move(name: str, trainable: Trainable) -> None:
    model = build(name)
    found = stages(model)
    num_frozen = len(found) - (trainable if isinstance(trainable, int) else 0)
    freeze_stages(model, trainable)
    expected = {parameter for stage in found[num_frozen:] for parameter in stage} | head_parameters(model)
    assert trained_parameters(model) == expected
    frozen_layers = {parameter.rpartition(".")[0] for stage in found[:num_frozen] for parameter in stage}
    before = train_steps(model)
    changed = moved(before, model)
    assert not {key for key in changed if key.rpartition(".")[0] in frozen_layers}, "a frozen parameter or buffer"
    assert expected <= changed
    statistics = {key for key in before if key.endswith("running_mean") and key.rpartition(".")[0] not in frozen_layers}
    assert statistics <= changed, "batch norms that train gather statistics"


@pytest.mark.parametrize("kappa", ["ls", "trainable"])
def test_kappa_goes_on(kappa: str) -> None:
    model = build(kappa=kappa)
    freeze_stages(model, "head")
    changed = moved(train_steps(model), model)
    assert changed == {"fc.weight", "fc.kappa", "fc.embedding_norm"} | (
        {"fc.log_kappa"} if kappa == "trainable" else set()
    )


def test_without_keeping_it_in_eval_batch_norm_moves() -> None:
    """What the function is for: `requires_grad` alone leaves the running statistics to change."""
    model = build()
    freeze_stages(model, "head")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    model(torch.randn(2, 3, 32, 32))
    assert "bn1.running_mean" in moved(before, model)


def test_each_call_starts_anew() -> None:
    model = build()
    freeze_stages(model, "head")
    assert trained_parameters(model) == {"fc.weight"}
    freeze_stages(model, 1)
    assert trained_parameters(model) == {*stages(model)[-1], "fc.weight"}
    freeze_stages(model, "all")
    assert trained_parameters(model) == {name for name, _ in model.named_parameters()}
    model.train()
    keep_frozen_in_eval(model)
    assert all(module.training for module in model.modules())


def test_batch_norms_keep_their_statistics_where_asked() -> None:
    model = build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    keep_frozen_in_eval(model, batch_norms=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    changed = moved(before, model)
    assert not {name for name in changed if "running" in name or "num_batches" in name}
    assert {"bn1.weight", "bn1.bias", "fc.weight"} <= changed


def test_a_copy_keeps_its_frozen_part() -> None:
    model = build()
    freeze_stages(model, 1)
    copied = copy.deepcopy(model)
    assert trained_parameters(copied) == trained_parameters(model)
    copied.train()
    keep_frozen_in_eval(copied)
    assert not copied.layer3[0].bn1.training
    assert copied.layer4[0].bn1.training


def test_under_ddp_and_ema() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = build()
        freeze_stages(model, 1)
        frozen = {name for stage in stages(model)[:-1] for name in stage}
        ema = ModelEmaV3(model, decay=0.5)
        before = train_steps(model, forward=DistributedDataParallel(model))
        ema.update(model)
        for trained in (model, ema.module):
            changed = moved(before, trained)
            assert {name for name, _ in model.named_parameters()} - frozen <= changed
            assert not {key for key in changed if not key.startswith(("layer4", "fc"))}
    finally:
        dist.destroy_process_group()


def test_dropout_is_off_where_frozen_and_on_before_the_head() -> None:
    """A frozen model without dropout before the head computes what it does in evaluation."""
    model = build("test_vit", proj_drop_rate=0.5, drop_path_rate=0.5)
    images = torch.randn(2, 3, 160, 160)
    freeze_stages(model, "head")
    expected = model.eval().forward_features(images)
    model.train()
    assert not torch.equal(model.forward_features(images), expected)
    keep_frozen_in_eval(model)
    assert torch.equal(model.forward_features(images), expected)
    assert model.head_drop.training
    assert model.training


def test_batch_norm_without_parameters_is_kept_within_a_frozen_module() -> None:
    model = build()
    model.layer1[0].bn1 = nn.BatchNorm2d(model.layer1[0].bn1.num_features, affine=False)
    freeze_stages(model, 3)
    assert not {key for key in moved(train_steps(model), model) if key.startswith("layer1")}


def test_head_alone_needs_no_stages() -> None:
    with torch.device("meta"):
        model = timm.create_model("poolformerv2_s12", num_classes=5)
    freeze_stages(model, "head")
    assert trained_parameters(model) == {"head.fc.weight", "head.fc.bias"}
    freeze_stages(model, "all")
    assert len(trained_parameters(model)) == len(list(model.parameters()))


def test_errors() -> None:
    model = build()
    for trainable in (5, 0, -1, "last"):
        with pytest.raises(
            ValueError,
            match=rf"{trainable!r} stages came, expected 'all', 'head' or 1 to 4: ResNet has 4 stages, which begin"
            r" with \['conv1.0.weight', 'layer2.0.conv1.weight', 'layer3.0.conv1.weight', 'layer4.0.conv1.weight'\]",
        ):
            freeze_stages(model, trainable)
    assert len(trained_parameters(model)) == len(list(model.parameters())), "a refused choice changes nothing"
    with torch.device("meta"):
        for name, kind in (("poolformerv2_s12", "MetaFormer"), ("rdnet_tiny", "RDNet")):
            with pytest.raises(ValueError, match=rf"{kind} does not say what its stages are .*'all' or 'head' instead"):
                freeze_stages(timm.create_model(name), 1)
    for trainable in ("head", 1):
        with pytest.raises(
            ValueError, match=r"has no classifier \(num_classes=0\), expected one to train; .*convert\("
        ):
            freeze_stages(timm.create_model("test_resnet", num_classes=0), trainable)
