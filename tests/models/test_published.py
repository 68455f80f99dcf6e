"""Backbones by name: what timm lists, opens and keeps of them."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import timm
import torch
from torch import nn

import cosify
from cosify.integrations.timm import register_backbones
from cosify.models import published
from cosify.training import TrainArguments
from cosify.training.model import ModelChoice, build_model

OWN, STOCK, ABSENT, AWAY = "resnet18_cifar.cos_a", "test_resnet.cos_b", "test_resnet.cos_c", "test_resnet.cos_d"
KAPPA = 7.5


def tiny(name: str) -> nn.Module:
    torch.manual_seed(0)
    width = {"width": 1 / 16} if name == OWN else {}
    model: nn.Module = timm.create_model(name.split(".")[0], head="cos", kappa=KAPPA, num_classes=5, **width)
    return model.eval()


@pytest.fixture(scope="module", autouse=True)
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Put four models where the published ones are: two with weights, one without, one on the hub alone."""
    root, patch = tmp_path_factory.mktemp("hub_cards"), pytest.MonkeyPatch()
    for name in (OWN, STOCK, ABSENT, AWAY):
        cosify.save(tiny(name), root / name, label_names=list("vwxyz"))
    (root / published.PUBLISHED).write_text(json.dumps({AWAY: f"ORG/{AWAY}@0123abc"}))
    for name in (ABSENT, AWAY):
        (root / name / "model.safetensors").unlink()
    registry = timm.models._registry
    patch.setattr(published, "backbones_folder", lambda: root)
    patch.setattr(registry, "_model_pretrained_cfgs", registry._model_pretrained_cfgs.copy())
    patch.setattr(registry, "_model_has_pretrained", registry._model_has_pretrained.copy())
    for architecture in ("resnet18_cifar", "test_resnet"):
        patch.setitem(registry._model_with_tags, architecture, [*registry._model_with_tags[architecture]])
    published.backbones.cache_clear()
    register_backbones()
    register_backbones()  # again changes nothing
    yield root
    patch.undo()
    published.backbones.cache_clear()


def test_timm_lists_what_can_be_had() -> None:
    assert timm.list_models("*cos_?", pretrained=True) == [OWN, STOCK, AWAY]
    assert ABSENT not in timm.list_models("test_resnet*", include_tags=True)
    assert timm.list_models("test_resnet", pretrained=True)[0].startswith("test_resnet")
    cfg = timm.get_pretrained_cfg(OWN)
    assert (cfg.architecture, cfg.tag, cfg.num_classes, cfg.input_size) == ("resnet18_cifar", "cos_a", 5, (3, 32, 32))


@pytest.mark.parametrize("name", [OWN, STOCK])
def test_a_name_gives_weights_head_width_and_classes(name: str, tmp_path: Path) -> None:
    model, expected = timm.create_model(name, pretrained=True).eval(), tiny(name)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected(images), rtol=1e-4, atol=1e-4)
    head = model.get_classifier()
    assert isinstance(head, cosify.CosineLinear)
    assert float(head.kappa) == KAPPA
    assert model.pretrained_cfg["label_names"] == list("vwxyz")
    cosify.save(model, tmp_path)  # without the arguments of the architecture this could not be opened
    with torch.no_grad():
        torch.testing.assert_close(cosify.load(tmp_path)(images), expected(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [OWN, STOCK])
def test_a_name_takes_what_other_names_take(name: str) -> None:
    images = torch.randn(2, 3, 32, 32)
    assert timm.create_model(name, pretrained=True, num_classes=3)(images).shape == (2, 3)
    assert timm.create_model(name, pretrained=True, num_classes=0)(images).ndim == 2
    assert type(timm.create_model(name, pretrained=True, head="linear").get_classifier()) is nn.Linear
    assert len(timm.create_model(name, pretrained=True, features_only=True)(images)) > 2
    new = timm.create_model(name)
    assert not torch.equal(new.get_classifier().weight, tiny(name).get_classifier().weight)
    assert new.get_classifier().weight.shape == tiny(name).get_classifier().weight.shape


def test_a_tag_is_named_in_timm_s_other_way_too() -> None:
    expected = timm.create_model(OWN, pretrained=True).state_dict()
    model = timm.create_model("resnet18_cifar", pretrained=True, pretrained_cfg="cos_a")
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


DAMAGES = {
    "torn": "{",
    "a list": "[]",
    "no architecture": "{}",
    "no settings": '{"architecture": "test_resnet"}',
    "of another timm": '{"architecture": "test_resnet", "pretrained_cfg": {"unheard_of": 1}}',
    "another architecture": '{"architecture": "resnet18", "pretrained_cfg": {}}',
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_folder_that_cannot_be_read_is_left_out(names: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    broken = names / "test_resnet.broken"
    broken.mkdir(exist_ok=True)
    (broken / "config.json").write_text(DAMAGES[name])
    published.backbones.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert sorted(published.backbones()) == sorted([OWN, STOCK, AWAY])
    assert f"{broken} is left out of the backbones" in caplog.text
    (broken / "config.json").unlink()
    published.backbones.cache_clear()


def test_a_folder_that_is_being_written_is_none_yet(names: Path, caplog: pytest.LogCaptureFixture) -> None:
    (names / ".test_resnet.new.1f").mkdir()
    (names / ".test_resnet.new.1f" / "config.json").write_text("{")
    published.backbones.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert sorted(published.backbones()) == sorted([OWN, STOCK, AWAY])
    assert caplog.text == ""
    published.backbones.cache_clear()


@pytest.mark.parametrize("head", ["linear", "cos"])
def test_training_from_a_name_has_the_head_that_was_asked_for(head: Literal["linear", "cos"], tmp_path: Path) -> None:
    args = TrainArguments(model=OWN, head=head, pretrained=True)
    model = build_model(ModelChoice.of(args), args, num_classes=5, in_chans=3)
    assert len(cosify.find_heads(model)) == (head == "cos")
    stock = timm.create_model(OWN, pretrained=True, head="linear").state_dict()
    assert torch.equal(model.get_parameter("fc.weight"), stock["fc.weight"])


def test_load_knows_names_and_keeps_the_policy() -> None:
    assert float(cosify.load(STOCK).get_classifier().kappa) == KAPPA


def test_the_tag_of_another_is_timm_s() -> None:
    with pytest.raises(RuntimeError, match="Invalid pretrained tag"):
        timm.create_model(ABSENT, pretrained=True)
    assert type(timm.create_model("test_resnet").get_classifier()) is nn.Linear


def test_one_that_is_not_here_is_taken_from_the_hub_at_its_commit() -> None:
    assert published.backbones()[AWAY].source == f"hf-hub:ORG/{AWAY}@0123abc"
    assert not published.backbones()[AWAY].is_local
    assert published.backbones()[OWN].source.startswith("local-dir:")
