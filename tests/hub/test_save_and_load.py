"""Saved folders: what is in them, and what is said of damaged ones."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.utils.model import freeze_batch_norm_2d
from torch import nn
from transformers import AutoModelForImageClassification, TimmWrapperConfig, TimmWrapperForImageClassification

import cosify
from cosify.extras import MissingExtraError
from cosify.hub.export import holds_weights_of
from cosify.hub.publish import check_rebuilt, folder_to_publish
from cosify.integrations.cosified import CosifiedForImageClassification
from cosify.models.network_identity import model_digest, same_network
from tests.integrations.tiny_vit import vit
from tests.killing import full_disk, killed


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    for key, value in changes.items():
        if value is None:
            config.pop(key)
        else:
            config[key] = value
    file.write_text(json.dumps(config))


def test_contents(saved: Path) -> None:
    config, state = json.loads((saved / "config.json").read_text()), load_file(saved / "model.safetensors")
    stock = timm.create_model("test_resnet", num_classes=5).state_dict()
    assert {key: value.shape for key, value in state.items()} == {key: value.shape for key, value in stock.items()}
    norms, start = state["fc.weight"].norm(dim=1), config["cosify"]["heads"]["fc"]
    torch.testing.assert_close(norms, torch.full_like(norms, start["kappa"] / start["embedding_norm"]))
    assert not state["fc.bias"].any()
    assert not {"head", "kappa", "num_classes"} & set(config["model_args"])
    assert config["num_classes"] == 5
    assert config["label_names"][2] == "cat"


def test_a_saved_model_opens_without_a_word(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="cosify"):
        cosify.load(saved)
    assert caplog.messages == []  # a bias that it never had is not dropped


@pytest.mark.parametrize("kappa", ["ls", "2ls", "ml", "rule", "trainable", "adacos", "adacos-dynamic", 25.0])
@pytest.mark.parametrize("eval_kappa", ["running", "sample", 9.5])
def test_every_policy_comes_back(kappa: float | str, eval_kappa: float | str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", head={"type": "cos", "kappa": kappa, "eval_kappa": eval_kappa}, num_classes=5)
    x = torch.randn(4, *model.pretrained_cfg["input_size"])
    nn.functional.cross_entropy(model(x), torch.arange(4)).backward()
    model.eval()
    other = cosify.load(cosify.save(model, tmp_path))
    assert other.head.kappa_spec == kappa
    assert other.head.eval_kappa == eval_kappa
    assert other.head.running_kappa() == pytest.approx(model.head.running_kappa())
    torch.testing.assert_close(other(x), model(x), rtol=1e-4, atol=1e-4)


def test_a_number_for_evaluation_is_of_its_classes(folder: Path) -> None:
    model = cosify.load(folder)
    model.fc.eval_kappa = 9.5
    cosify.save(model, folder)
    name = f"local-dir:{folder}"
    assert timm.create_model(name, pretrained=True).fc.eval_kappa == 9.5
    assert timm.create_model(name, pretrained=True, num_classes=7).fc.eval_kappa == "running"
    again = cosify.load(folder)
    again.reset_classifier(7)
    assert again.fc.eval_kappa == "running"
    assert timm.create_model("test_resnet", head={"type": "cos", "eval_kappa": 4}, num_classes=7).fc.eval_kappa == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "levit_128s", "dla46x_c", "efficientvim_m1"])
def test_several_heads_and_convolutions_open_in_the_stock_model(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, head="cos", num_classes=5)
    x = torch.randn(2, *model.pretrained_cfg["input_size"])
    with torch.no_grad():
        model(x)
        model.eval()
        expected = model(x)
        cosify.save(model, tmp_path)
        torch.testing.assert_close(cosify.load(tmp_path)(x), expected, rtol=1e-4, atol=1e-4)
        stock = timm.create_model(name, num_classes=5).eval()
        stock.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
        heads = cosify.find_heads(model)
        if len(heads) == 1:
            assert torch.equal(stock(x).argmax(1), expected.argmax(1))
        for path, head in heads.items():
            rows = torch.randn(50, head.weight.shape[1], *[1] * (head.weight.ndim - 2))
            leaf = stock.get_submodule(path)
            assert torch.equal(leaf(rows).argmax(1), head.eval()(rows).argmax(1)), path


def test_saving_again_replaces_and_keeps_other_files(folder: Path) -> None:
    (folder / "README.md").write_text("a card")
    model = cosify.load(folder)
    cosify.convert(model, kappa=9.0)
    cosify.save(model, folder)
    assert cosify.load(folder).fc.kappa_spec == 9.0
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "expected.pt",
        "model.safetensors",
    ]


def test_a_failed_save_leaves_the_old_folder(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = cosify.load(folder)
    cosify.convert(model, kappa=9.0)

    with full_disk(50_000), pytest.raises(OSError, match=r"model.safetensors cannot be written \(.*File too large"):
        cosify.save(model, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.fixture(scope="module")
def other(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the same layers."""
    return cosify.save(cosify.convert(cosify.load(saved), kappa=33.0), tmp_path_factory.mktemp("other"))


OPENINGS = {
    "cosify": cosify.load,
    "timm": lambda folder: timm.create_model(f"local-dir:{folder}", pretrained=True),
    "stock head": lambda folder: timm.create_model(f"local-dir:{folder}", pretrained=True, head="linear"),
    "features": lambda folder: timm.create_model(f"local-dir:{folder}", pretrained=True, features_only=True),
    "transformers": lambda folder: _automatic("AutoModelForImageClassification").from_pretrained(folder),
    "base model": lambda folder: _automatic("AutoModel").from_pretrained(folder),
}


def _automatic(name: str) -> Any:
    import transformers

    return getattr(transformers, name)


@pytest.mark.parametrize("opening", OPENINGS)
@pytest.mark.parametrize("replaced", ["config.json", "model.safetensors"])
def test_a_mixture_of_two_saves_is_refused(replaced: str, opening: str, folder: Path, other: Path) -> None:
    shutil.copyfile(other / replaced, folder / replaced)
    with pytest.raises(ValueError, match=r"are of two different saves .* save the model again with cosify.save$"):
        OPENINGS[opening](folder)


def test_a_save_that_was_killed_leaves_no_mixture(folder: Path, other: Path) -> None:
    """Killed in the write, before, between and after the renames: the old model, an error, the new one."""

    model = cosify.load(other)
    killed(lambda: cosify.save(model, folder))
    killed(lambda: cosify.save(model, folder), rename=0)
    assert cosify.load(folder).fc.kappa_spec == "ls"
    killed(lambda: cosify.save(model, folder), rename=1)
    with pytest.raises(
        ValueError, match=r", or rename .*\.new/model.safetensors, which a save that was stopped left, to model.saf"
    ):
        cosify.load(folder)
    (aside,) = folder.glob(".model.safetensors.*.new/model.safetensors")
    mended = Path(shutil.copytree(folder, folder.with_name("mended")))
    (mended / aside.relative_to(folder)).replace(mended / "model.safetensors")
    assert cosify.load(mended).fc.kappa_spec == 33.0
    killed(lambda: cosify.save(model, folder))
    assert list(folder.glob(".model.safetensors.*.new/.tmp*"))
    cosify.save(model, folder)
    assert cosify.load(folder).fc.kappa_spec == 33.0
    assert not list(folder.glob(".*")), "what the killed saves left is removed"


def test_leftovers_of_a_user_stay(folder: Path) -> None:
    names = [
        ".model.safetensors.new",
        ".model.safetensors.for-july.new",
        ".config.json.0123.new",
        ".config.json.d/notes",
    ]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    (folder / f".config.json.{'0' * 16}.new").symlink_to(folder / names[1])
    cosify.save(cosify.load(folder), folder)
    assert [(folder / name).read_text() for name in names] == ["mine"] * 4


@pytest.mark.parametrize("error", [PermissionError, KeyboardInterrupt])
def test_a_rename_that_fails_restores_the_old_model(
    error: type[BaseException], folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def refuse(source: Any, target: Any) -> None:
        if Path(target).name == "model.safetensors":
            raise error("the file is open")
        replace(source, target)

    model, before = cosify.load(other), {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(error, match="the file is open"):
        cosify.save(model, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(error, match="the file is open"):
        cosify.save(model, folder / "new")
    assert list((folder / "new").iterdir()) == []


def test_a_save_that_is_stopped_after_both_renames_is_whole(
    folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def stop(source: Any, target: Any) -> None:
        replace(source, target)
        if Path(target).name == "model.safetensors":
            raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        cosify.save(cosify.load(other), folder)
    assert cosify.load(folder).fc.kappa_spec == 33.0


def test_weights_of_other_programs_open_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Half precision by hand, and what a stock Trainer writes: the same config.json, weights without a digest."""
    state = load_file(folder / "model.safetensors")
    halves = {name: value.half() if value.ndim > 1 else value for name, value in state.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    model = cosify.load(folder)
    assert "was written by another program than the config.json beside it: kappa and class names" in caplog.text
    caplog.clear()
    cosify.save(model, folder)
    cosify.load(folder)
    assert caplog.text == ""


def test_folders_of_earlier_editions_open(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit(folder, cosify_weights=None)
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors", metadata={"format": "pt"})
    assert cosify.load(folder).fc.kappa_spec == "ls"
    assert caplog.text == ""


def test_what_transformers_saves_again_is_bound_to_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("AutoModelForImageClassification", "AutoModel"):
        model = _automatic(name).from_pretrained(folder)
        model.save_pretrained(folder.with_name(name))
        assert "cosify_weights" not in json.loads((folder.with_name(name) / "config.json").read_text())
    again = _automatic("AutoModelForImageClassification").from_pretrained(folder, config=model.config)
    assert cosify.find_heads(again)
    cosify.load(folder.with_name("AutoModelForImageClassification"))
    assert "another program" not in caplog.text


def test_own_arguments_of_a_model_survive(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = timm.create_model("hrnet_w18_small", head="classification", num_classes=3)
    cosify.convert(model)
    model.to_empty(device="cpu")
    for head in cosify.find_heads(model).values():
        head.reset_parameters()
        head.init_non_persistent_buffers()
    cosify.save(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_args"]["head"] == "classification"


def test_adapters_are_refused(tmp_path: Path) -> None:
    class Adapter(nn.Linear):  # as PEFT leaves them in a model that was not merged
        __module__ = "peft.tuners.lora.layer"

    class PeftModel(nn.Module):
        __module__ = "peft.peft_model"

    model = timm.create_model("test_resnet", head="cos", num_classes=3)
    model.layer1.adapter = Adapter(2, 2)
    with pytest.raises(ValueError, match=r"layer1.adapter is an adapter of PEFT, .* merge_and_unload\(\)"):
        cosify.save(model, tmp_path / "out")
    with pytest.raises(ValueError, match=r"^PeftModel is an adapter of PEFT, .* merge_and_unload\(\)"):
        cosify.save(PeftModel(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["timm", "transformers"])
def test_a_model_that_no_reader_would_build_is_refused(kind: str, tmp_path: Path) -> None:
    model: Any = timm.create_model("test_resnet", num_classes=3) if kind == "timm" else vit(num_labels=3)
    name = "fc" if kind == "timm" else "classifier"
    width = model.get_submodule(name).in_features
    setattr(model, name, nn.Sequential(nn.BatchNorm1d(width), cosify.CosineLinear(width, 3)))
    with pytest.raises(ValueError, match=rf"no reader could open .* Missing key.*{name}\.weight"):
        cosify.save(model, tmp_path / "out")
    setattr(model, name, cosify.CosineLinear(width, 3))
    cosify.save(model, tmp_path / "out")
    if kind == "timm":
        model.conv1[0] = nn.Conv2d(1, model.conv1[0].out_channels, 3, bias=False)
        with pytest.raises(ValueError, match=r"no reader .* size mismatch for conv1.0.weight"):
            cosify.save(model, tmp_path / "grey")
        assert not (tmp_path / "grey").exists()


def test_what_a_reader_passes_over_or_is_told_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of a loss beside a transformers model, and an architecture of a user's own that timm does not build."""

    def own_net(pretrained: bool = False, num_classes: int = 1000, **_: Any) -> nn.Module:
        model = timm.create_model("test_resnet", num_classes=num_classes)
        model.pretrained_cfg = {**model.pretrained_cfg, "architecture": "own_net"}
        return model

    model = cosify.convert(vit(num_labels=3))
    model.loss_fn = nn.CrossEntropyLoss(weight=torch.ones(3))
    cosify.save(model, tmp_path / "loss")
    monkeypatch.setitem(timm.models._registry._model_entrypoints, "own_net", own_net)
    cosify.save(timm.create_model("own_net", num_classes=3), tmp_path / "own")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss", "own"]


def test_a_classifier_without_bias_is_saved_without_one(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ImageGPTConfig(vocab_size=9, n_positions=16, n_embd=8, n_layer=1, n_head=2, num_labels=3)
    model = cosify.convert(transformers.ImageGPTForImageClassification(config).eval())
    tokens = torch.randint(9, (4, 16))
    folder = cosify.save(model, tmp_path)
    assert "score.bias" not in load_file(folder / "model.safetensors")
    assert holds_weights_of(folder, model)
    torch.testing.assert_close(cosify.load(folder)(tokens).logits, model(tokens).logits)


def test_frozen_batch_norms_are_saved(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", head="cos", num_classes=3).eval()
    images = torch.randn(2, 3, 32, 32)
    expected = model(images)
    model = freeze_batch_norm_2d(model)  # which keeps no count of batches
    other = cosify.load(cosify.save(model, tmp_path))
    torch.testing.assert_close(other(images), expected)


def test_saving_errors(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"ResNet has no classifier \(num_classes=0\), .*; call cosify.convert\(.* before saving",
    ):
        cosify.save(timm.create_model("test_resnet", num_classes=0), tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TypeError, match=r"Sequential is neither a timm nor a transformers model; unwrap it"):
        cosify.save(nn.Sequential(), tmp_path)
    model = timm.create_model("test_resnet", num_classes=5, act_layer=nn.SiLU)
    with pytest.raises(ValueError, match=r"'act_layer' is not serializable.*; give timm.create_model names .*'silu'"):
        cosify.save(model, tmp_path)
    model = timm.create_model("test_resnet", head="cos", num_classes=5)
    with pytest.raises(ValueError, match=r"2 label_names came for 5 classes"):
        cosify.save(model, tmp_path, label_names=["a", "b"])
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        cosify.save(model, tmp_path / "file" / "folder")


def test_folder_without_the_key(folder: Path) -> None:
    edit(folder, cosify=None)
    assert type(cosify.load(folder).fc) is nn.Linear
    assert type(timm.create_model(f"local-dir:{folder}", pretrained=True).fc) is nn.Linear


@pytest.mark.parametrize(
    "damaged", ["ls", [], {"format": 1}, {"format": 1, "kappa": "x", "eval_kappa": "running", "heads": {}}]
)
def test_damaged_key(damaged: object, folder: Path) -> None:
    edit(folder, cosify=damaged)
    with pytest.raises(ValueError, match=r"the 'cosify' key of .*config.json is damaged"):
        cosify.load(folder)
    with pytest.raises(ValueError, match=r"is damaged"):
        timm.create_model(f"local-dir:{folder}", pretrained=True)


def test_damaged_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"cosify": ')
    with pytest.raises(ValueError, match=r"config.json is not JSON"):
        cosify.load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config.json does not exist"):
        cosify.load(folder)


def test_nowhere_to_load_from() -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no/such is neither a folder here nor a model that the hub could give"
    ):
        cosify.load("no/such")


def test_weights_of_another_class_count(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["fc.weight"], state["fc.bias"] = torch.randn(8, 96), torch.zeros(8)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"fc.weight holds 8 classes, this head has 5; build the model with num_classes=8"
    ):
        cosify.load(folder)


def test_partial_requests_keep_what_was_published(folder: Path) -> None:
    model = cosify.load(folder)
    cosify.convert(model, kappa=20.0)
    cosify.save(model, folder)
    for settings, eval_kappa in (
        ({"head": "cos"}, "running"),
        ({"head": {"type": "cos", "eval_kappa": "sample"}}, "sample"),
    ):
        other = timm.create_model(f"local-dir:{folder}", pretrained=True, **settings)
        assert other.fc.kappa_spec == 20.0
        assert other.fc.eval_kappa == eval_kappa
    assert json.loads((folder / "config.json").read_text())["label_names"][2] == "cat", "names survive load and save"


def test_unreadable_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"the weights .* cannot be read \(SafetensorError"):
        cosify.load(folder)
    weights.unlink()
    with pytest.raises(ValueError, match=r"lacks model.safetensors, expected what cosify.save writes"):
        cosify.load(folder)


@pytest.mark.parametrize("head", ["cosine", "softmax", "of transformers"])
def test_transformers_weights_that_are_not_whole(head: str, tmp_path: Path) -> None:
    model = cosify.convert(vit()) if head == "cosine" else vit()
    if head == "of transformers":
        model.save_pretrained(tmp_path)
    else:
        cosify.save(model, tmp_path)
    cosify.load(tmp_path)
    file = tmp_path / "model.safetensors"
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    whole = load_file(file)
    for name in ("classifier.weight", "vit.layernorm.bias"):
        save_file({key: value for key, value in whole.items() if key != name}, file, metadata)
        with pytest.raises(ValueError, match=rf"the weights of .* lack {name}, expected the tensors of its"):
            cosify.load(tmp_path)
    save_file({**whole, "vit.embeddings.position_ids": torch.arange(4)}, file, metadata)
    if head == "of transformers":  # a checkpoint of others may hold more
        cosify.load(tmp_path)
    else:
        with pytest.raises(ValueError, match=r"the weights of .* hold besides vit\.embeddings\.position_ids, expected"):
            cosify.load(tmp_path)


def test_a_transformers_backbone_has_no_classifier_to_lack(tmp_path: Path) -> None:
    vit().vit.save_pretrained(tmp_path)
    assert cosify.load(tmp_path).classifier.out_features == 5


@pytest.mark.parametrize("kappa", ["ls", "trainable", 60.0])
def test_a_cosified_folder_is_whole(kappa: float | str, tmp_path: Path) -> None:
    model = CosifiedForImageClassification.from_model(vit(), kappa)
    model.save_pretrained(tmp_path)
    assert cosify.load(tmp_path).config.model_type == "cosified"
    cosify.convert(vit(), kappa).save_pretrained(tmp_path / "native")
    assert cosify.find_heads(cosify.load(tmp_path / "native"))


def test_description_of_a_head_that_is_not_there(folder: Path) -> None:
    key = json.loads((folder / "config.json").read_text())["cosify"]
    key["heads"]["classifier"] = key["heads"].pop("fc")
    edit(folder, cosify=key)
    with pytest.raises(ValueError, match=r"describes heads \['classifier'\] that the model lacks"):
        cosify.load(folder)


def test_a_run_opens_its_export(folder: Path) -> None:
    run = folder.with_name("run")
    shutil.copytree(folder, run / "export")
    (run / "config.json").write_text('{"cosify_run": 1}')
    assert cosify.load(run).fc.kappa_spec == "ls"
    shutil.rmtree(run / "export")
    for opened in (cosify.load, cosify.Rejector.load, folder_to_publish):
        with pytest.raises(ValueError, match=f"{run} is a run without an export, expected a model; a training"):
            opened(run)


def test_wrapped_models_are_named(tmp_path: Path) -> None:
    model = torch.compile(timm.create_model("test_resnet", head="cos", num_classes=5))
    with pytest.raises(TypeError, match=r"unwrap it first .*_orig_mod of torch.compile"):
        cosify.save(model, tmp_path)
    with pytest.raises(TypeError, match=r"label_names is 'abcde', expected a sequence of strings"):
        cosify.save(model._orig_mod, tmp_path, label_names="abcde")


@pytest.mark.slow
def test_a_softmax_model_opens_in_every_reader(tmp_path: Path) -> None:
    from cosify.hub.publish import check_folder

    model = timm.create_model("test_resnet", num_classes=3)
    cosify.save(model, tmp_path, label_names=["ant", "bee", "cat"])
    assert len(check_folder(tmp_path)) == 4
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["label_names"] == ["ant", "bee", "cat"]
    assert "cosify" not in config


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["timm", "transformers"])
def test_a_model_is_what_its_folder_rebuilds(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=9) if kind == "timm" else vit(num_labels=9)
    cosify.convert(model)
    model.to(dtype).train()
    frozen = next(module for module in model.modules() if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)))
    frozen.eval()
    before = [module.training for module in model.modules()]
    check_rebuilt(cosify.save(model, tmp_path), model)
    assert [module.training for module in model.modules()] == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_network_that_was_changed_by_hand_is_not_what_its_folder_rebuilds(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=9)
    model.maxpool, model.conv1[0].stride = nn.Identity(), (1, 1)  # the usual change for small images
    model.pretrained_cfg["input_size"] = (3, 32, 32)
    cosify.convert(model)
    model.to(dtype).train()
    folder = cosify.save(model, tmp_path)
    with pytest.raises(ValueError, match=r"rebuilds another network than this ResNet: \d+ of 32 images get another"):
        check_rebuilt(folder, model)
    assert all(module.training for module in model.modules())
    with pytest.raises(ValueError, match="rebuilds another network"):
        cosify.push(model, "ORG/net", dry_run=True)


@pytest.mark.parametrize("kind", ["timm", "transformers"])
def test_a_softmax_model_comes_back(kind: str, tmp_path: Path) -> None:
    if kind == "timm":
        model, images = timm.create_model("test_resnet", num_classes=3).eval(), torch.randn(2, 3, 64, 64)
    else:
        pytest.importorskip("transformers")
        model, images = vit(num_labels=3).eval(), torch.randn(2, 3, 32, 32)
    cosify.save(model, tmp_path, label_names=["ant", "bee", "cat"])
    other = cosify.load(tmp_path)
    assert type(other) is type(model)
    assert not cosify.find_heads(other)
    assert not other.training
    with torch.no_grad():
        for one, two in zip(logits_of(model(images)), logits_of(other(images)), strict=True):
            assert torch.equal(one, two)
    if kind == "transformers":
        with pytest.raises(ValueError, match=r"is a model of transformers, expected one of timm"):
            cosify.load(tmp_path, head="linear")
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"the weights .* cannot be read \(SafetensorError"):
        cosify.load(tmp_path)


def test_a_head_of_other_classes_than_the_model_is_not_saved(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=4)
    model.fc = cosify.CosineLinear(model.num_features, 9)
    with pytest.raises(ValueError, match=r"the head 'fc' has 9 classes and ResNet says it has 4, .* num_classes=9\)"):
        cosify.save(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_timm_wrapper_that_was_made_from_nothing_opens(tmp_path: Path) -> None:
    wrapped = TimmWrapperForImageClassification(TimmWrapperConfig(architecture="test_resnet", num_labels=5))
    model = cosify.convert(wrapped).eval()
    model.save_pretrained(tmp_path)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(cosify.load(tmp_path)(images).logits, model(images).logits)


def test_a_wrapped_model_is_the_network_that_its_folder_opens(tmp_path: Path) -> None:
    cosified = CosifiedForImageClassification.from_model(vit(), kappa=5.0)
    assert same_network(model_digest(cosified), model_digest(cosify.load(cosify.save(cosified, tmp_path / "vit"))))
    timm_folder = cosify.save(timm.create_model("test_resnet", head="cos", num_classes=5), tmp_path / "timm")
    wrapped = AutoModelForImageClassification.from_pretrained(timm_folder)
    assert same_network(model_digest(wrapped), model_digest(cosify.load(timm_folder)))


def test_a_timm_model_in_several_files_is_refused_in_words(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    cosify.save(timm.create_model("test_resnet", head="cos", num_classes=3), tmp_path / "one")
    wrapper = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "one")
    wrapper.save_pretrained(tmp_path / "many", max_shard_size="50KB")
    with pytest.raises(ValueError, match=r"many holds its weights in \d+ files, expected model.safetensors alone"):
        cosify.load(tmp_path / "many")


def logits_of(output: Any) -> Any:
    return getattr(output, "logits", output)


def test_the_stock_head_of_a_saved_model(folder: Path) -> None:
    assert type(cosify.load(folder, head="linear").fc) is nn.Linear
    assert type(cosify.load(folder).fc) is cosify.CosineLinear


@pytest.mark.parametrize(
    "source", ["resnet18_cifar.cos_ls_cifar100", "local-dir:{folder}", "{folder}", "resnet18_cifar.softmax_cifar100"]
)
def test_ways_to_name_a_model(source: str, folder: Path) -> None:
    model = cosify.load(source.format(folder=folder))
    assert bool(cosify.find_heads(model)) == ("softmax" not in source)
    assert not model.training


@pytest.mark.parametrize("name", ["resnet5000", "hf-hub:alone"])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="is neither a folder here, nor a published backbone, nor a timm model"):
        cosify.load(name)


@pytest.mark.parametrize("change", ["reset_classifier", "convert"])
def test_names_of_a_replaced_classifier_are_not_written(change: str, tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=3, head="cos")
    cosify.save(model, tmp_path, label_names=["ant", "bee", "cow"])
    model = cosify.load(tmp_path)
    again = cosify.save(model, tmp_path / "again")
    assert json.loads((again / "config.json").read_text())["label_names"] == ["ant", "bee", "cow"]
    if change == "convert":
        cosify.convert(model, num_classes=3)
    else:
        model.reset_classifier(3)
    text = (cosify.save(model, tmp_path / "other") / "config.json").read_text()
    assert "ant" not in text
    assert cosify.load(tmp_path / "other").pretrained_cfg.get("label_names") is None


def test_a_misspelt_name_is_answered_with_what_it_may_be() -> None:
    with pytest.raises(cosify.errors.NotFoundError, match=r"did you mean resnet18_cifar.cos_60_cifar100 .*\?"):
        cosify.load("resnet18_cifar.cos_60_cifar10")
    with pytest.raises(cosify.errors.NotFoundError, match=r"see cosify backbones and timm.list_models\(\)"):
        cosify.load("§§§")


@pytest.mark.parametrize("head", ["cosine", "stock"])
def test_a_folder_of_transformers_says_what_it_needs(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cosify.save(cosify.convert(vit()), tmp_path) if head == "cosine" else vit().save_pretrained(tmp_path)
    for name in [each for each in sys.modules if each.partition(".")[0] == "transformers"]:
        monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
    with pytest.raises(MissingExtraError, match="needs transformers, which is not installed; run pip install"):
        cosify.load(tmp_path)
