"""`timm.create_model(..., head="cos")`: what is intercepted and what passes."""

import copy
import json
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import timm.loss
import torch
import transformers
from safetensors.torch import save_file
from timm import create_model  # bound before or after the plugin, it must work
from torch import nn

import cosify
from cosify.heads import CosineLinear
from cosify.integrations.timm import install
from tests.processes import run_python


def head_of(model: nn.Module) -> Any:
    (head,) = cosify.find_heads(model).values()
    return head


@pytest.mark.parametrize(
    ("settings", "kappa", "eval_kappa"),
    [
        ({"head": "cos"}, "ls", "running"),
        ({"head": "cos", "kappa": 60}, 60, "running"),
        ({"head": "cos", "kappa": "trainable"}, "trainable", "running"),
        ({"head": {"type": "cos"}}, "ls", "running"),
        ({"head": {"type": "cos", "kappa": 60, "eval_kappa": "sample"}}, 60, "sample"),
        ({"head": {"type": "cos"}, "kappa": "ml"}, "ml", "running"),
    ],
)
def test_head_settings(settings: dict[str, Any], kappa: float | str, eval_kappa: str) -> None:
    model = timm.create_model("test_resnet", num_classes=5, **settings)
    assert isinstance(model.fc, CosineLinear)
    assert model.fc.kappa_spec == kappa
    assert model.fc.eval_kappa == eval_kappa
    assert model(torch.randn(2, *model.pretrained_cfg["input_size"])).shape == (2, 5)


def with_kappa_in_evaluation(model: nn.Module, kappa: float) -> nn.Module:
    head_of(model).eval_kappa = kappa
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda made, folder: made(head="cos"),
        lambda made, folder: cosify.convert(made()),
        lambda made, folder: cosify.convert(made(head="cos", kappa=60)),
        lambda made, folder: cosify.convert(made(head="cos"), kappa=60),
        lambda made, folder: with_kappa_in_evaluation(made(head="cos", kappa=60), 7.0),
        lambda made, folder: cosify.load(cosify.save(made(head="cos"), folder)),
        lambda made, folder: timm.create_model(f"local-dir:{cosify.save(made(head='cos'), folder)}", pretrained=True),
    ],
    ids=["made", "converted", "60-to-ls", "ls-to-60", "fitted", "loaded", "opened"],
)
def test_what_timm_itself_saves_opens_with_its_head(make: Callable[..., nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = make(partial(timm.create_model, "test_resnet", num_classes=5), tmp_path / "cosify")
    images = torch.randn(4, 3, 64, 64)
    model.train()(images)
    timm.models.save_for_hf(model.eval(), tmp_path / "timm", safe_serialization=True)
    opened = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    for other in (opened, cosify.load(tmp_path / "timm")):
        for setting in ("kappa_spec", "eval_kappa"):
            assert getattr(head_of(other), setting) == getattr(head_of(model), setting)
        torch.testing.assert_close(other(images), model(images), rtol=0, atol=0)


@pytest.fixture(scope="module")
def saved_by_both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return folders of timm and of cosify, of one model with kappa = 60 and 7 in evaluation."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=5, head="cos", kappa=60)
    model.train()(torch.randn(4, 3, 64, 64))
    with_kappa_in_evaluation(model, 7.0).eval()
    folder = tmp_path_factory.mktemp("saved")
    timm.models.save_for_hf(model, folder / "timm", safe_serialization=True)
    return folder / "timm", cosify.save(model, folder / "cosify")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"kappa": "ls"},
        {"head": "cos"},
        {"head": "cos", "kappa": "trainable"},
        {"head": {"type": "cos", "eval_kappa": "sample"}},
        {"head": "linear"},
        {"features_only": True},
        {"num_classes": 0},
    ],
)
def test_what_timm_itself_saves_opens_like_a_folder_of_cosify(
    settings: dict[str, Any], saved_by_both: tuple[Path, Path]
) -> None:
    images = torch.randn(4, 3, 64, 64)
    one, other = (timm.create_model(f"local-dir:{each}", pretrained=True, **settings).eval() for each in saved_by_both)
    for head, same in zip(cosify.find_heads(one).values(), cosify.find_heads(other).values(), strict=True):
        for name in ("kappa_spec", "eval_kappa", "start_kappa", "start_norm"):
            assert getattr(head, name) == getattr(same, name)
        torch.testing.assert_close(head.kappa, same.kappa)
    torch.testing.assert_close(one(images), other(images), rtol=1e-4, atol=1e-4)


def test_what_timm_itself_saves_of_a_trained_kappa_opens_with_a_stock_layer_of_that_kappa(tmp_path: Path) -> None:
    images = torch.randn(4, 3, 64, 64)
    model = timm.create_model("test_resnet", num_classes=5, head="cos", kappa="trainable")
    nn.init.constant_(head_of(model).log_kappa, 3.0)  # as by the last step, after the last record of `kappa`
    timm.models.save_for_hf(model, tmp_path / "timm", safe_serialization=True)
    folders = tmp_path / "timm", cosify.save(model, tmp_path / "cosify")
    one, other = (timm.create_model(f"local-dir:{each}", pretrained=True, head="linear").eval() for each in folders)
    torch.testing.assert_close(one(images), other(images), rtol=1e-4, atol=1e-4)


def test_what_a_timm_wrapper_saves_opens_with_its_head(saved_by_both: tuple[Path, Path], tmp_path: Path) -> None:
    images, expected = torch.randn(4, 3, 64, 64), cosify.load(saved_by_both[1])
    transformers.AutoModelForImageClassification.from_pretrained(saved_by_both[1]).save_pretrained(tmp_path)
    torch.testing.assert_close(cosify.load(tmp_path)(images), expected(images))
    assert torch.equal(cosify.load(tmp_path, head="linear")(images).argmax(dim=1), expected(images).argmax(dim=1))


def test_what_timm_itself_saves_is_given_other_classes(saved_by_both: tuple[Path, Path]) -> None:
    for folder in saved_by_both:
        head = head_of(timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=3))
        assert (head.num_classes, head.kappa_spec, head.eval_kappa) == (3, 60, "running"), folder


def test_what_timm_itself_saves_of_other_heads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = torch.randn(4, 3, 64, 64)
    model = timm.create_model("test_resnet", num_classes=5, head="cos", kappa=60).eval()
    model.fc = nn.Linear(model.fc.in_features, 5)  # someone's wish for a softmax
    timm.models.save_for_hf(model, tmp_path / "softmax", safe_serialization=True)
    config = json.loads((tmp_path / "softmax" / "config.json").read_text())
    assert not {"head", "kappa"} & set(config["model_args"])
    opened = timm.create_model(f"local-dir:{tmp_path / 'softmax'}", pretrained=True).eval()
    torch.testing.assert_close(opened(images), model(images), rtol=0, atol=0)

    headless = timm.create_model("test_resnet", num_classes=0, head="cos", kappa=60)
    timm.models.save_for_hf(headless, tmp_path / "none", safe_serialization=True)
    opened = timm.create_model(f"local-dir:{tmp_path / 'none'}", pretrained=True)
    opened.reset_classifier(4)
    assert head_of(opened).kappa_spec == 60

    assert caplog.messages == []
    settings = {"img_size": 32, "depth": 1, "num_classes": 5, "head": "cos"}
    two = timm.create_model("deit_tiny_distilled_patch16_224", **settings)
    two.head.eval_kappa = 3.0
    timm.models.save_for_hf(two, tmp_path / "two", safe_serialization=True)
    assert "does not say which head VisionTransformerDistilled has: the heads ['head', 'head_dist']" in caplog.text
    with pytest.raises(ValueError, match="have different kappa policies or eval_kappa"):
        cosify.save(two, tmp_path / "other")


def test_timm_writes_a_configuration_by_its_own_words(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet")
    timm.models._hub.save_config_for_hf(model=model, config_path=str(tmp_path / "config.json"), model_args={"a": 1})
    assert json.loads((tmp_path / "config.json").read_text())["model_args"]["a"] == 1


@pytest.mark.slow
def test_a_network_with_a_head_argument_of_its_own_opens_with_ours(tmp_path: Path) -> None:
    model = timm.create_model("hrnet_w18_small", head="classification", num_classes=4)
    cosify.convert(model, kappa=9.0).eval()
    images = torch.randn(2, 3, 64, 64)
    timm.models.save_for_hf(model, tmp_path / "timm", safe_serialization=True)
    for folder in (tmp_path / "timm", cosify.save(model, tmp_path / "cosify")):
        for opened in (timm.create_model(f"local-dir:{folder}", pretrained=True).eval(), cosify.load(folder)):
            torch.testing.assert_close(opened(images), model(images), rtol=1e-4, atol=1e-4)


def test_what_is_not_ours_passes_through() -> None:
    assert type(timm.create_model("test_resnet").fc) is nn.Linear
    assert type(timm.create_model("test_resnet", head=None).fc) is nn.Linear
    assert type(timm.create_model("test_resnet", head="linear").fc) is nn.Linear
    with torch.device("meta"):
        hrnet = timm.create_model("hrnet_w18_small", head="classification")
        assert not cosify.find_heads(hrnet)
        assert cosify.find_heads(timm.create_model("hrnet_w18_small", head="cos"))


def test_models_without_classes_and_feature_extractors() -> None:
    model = timm.create_model("test_resnet", head="cos", num_classes=0)
    model.reset_classifier(4)
    assert isinstance(model.fc, CosineLinear)
    features = timm.create_model("test_resnet", head="cos", features_only=True)
    assert not cosify.find_heads(features)
    assert len(features(torch.randn(1, 3, 64, 64))) > 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "bogus"}, r"head='bogus' is unknown to test_resnet, expected 'cos', 'linear' or \{'type': 'cos'"),
        ({"head": {"type": "mlp"}}, r"head=\{'type': 'mlp'\} is unknown to test_resnet"),
        ({"head": {"type": "cos", "scale": 3}}, r"unknown keys \['scale'\]"),
        ({"head": "cos", "kappa": -1}, r"kappa is -1, expected a finite number above 0"),
        ({"head": "cos", "kappa": "lsq"}, r"unknown kappa policy 'lsq'"),
        ({"head": "linear", "kappa": 3}, r"kappa=3 has no effect with head='linear'"),
        ({"kappa": 60}, r"kappa=60 has no effect without a cosine head; add head='cos'"),
        ({"head": "cos", "num_classes": 1}, r"num_classes is 1, expected at least 2"),
    ],
)
def test_messages(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        timm.create_model("test_resnet", **settings)


def test_models_own_errors_pass() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'no_such_argument'"):
        timm.create_model("test_resnet", head="cos", no_such_argument=1)
    with pytest.raises(RuntimeError, match="Unknown model"):
        timm.create_model("no_such_model", head="cos")


def test_install_is_idempotent() -> None:
    before = timm.models._factory.model_entrypoint, timm.models._builder.load_pretrained
    install()
    assert before == (timm.models._factory.model_entrypoint, timm.models._builder.load_pretrained)


@pytest.fixture
def stock_weights(tmp_path: Path) -> dict[str, Any]:
    """Weights of an ordinary model in a file, as `pretrained=True` would download them."""
    torch.manual_seed(3)
    model = timm.create_model("test_resnet")
    torch.save(model.state_dict(), tmp_path / "stock.pth")
    return {"pretrained_cfg_overlay": {"file": str(tmp_path / "stock.pth")}, "weight": model.fc.weight}


def test_stock_pretrained_weights_keep_the_classifier(stock_weights: dict[str, Any]) -> None:
    weight = stock_weights.pop("weight")
    model = timm.create_model("test_resnet", pretrained=True, head="cos", **stock_weights)
    assert isinstance(model.fc, CosineLinear)
    assert torch.equal(model.fc.weight, weight)
    other = timm.create_model("test_resnet", pretrained=True, head="cos", num_classes=6, in_chans=1, **stock_weights)
    assert other(torch.randn(2, 1, 64, 64)).shape == (2, 6)


def test_cosine_checkpoints_load_strictly(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", head="cos", num_classes=5)
    model(torch.randn(4, 3, 64, 64))
    torch.save(model.state_dict(), tmp_path / "cos.pth")
    settings: dict[str, Any] = {"head": "cos", "num_classes": 5}
    overlay = {"file": str(tmp_path / "cos.pth"), "num_classes": 5}
    for other in (
        create_model("test_resnet", checkpoint_path=tmp_path / "cos.pth", **settings),
        create_model("test_resnet", pretrained=True, pretrained_cfg_overlay=overlay, **settings),
    ):
        assert torch.equal(other.fc.kappa, model.fc.kappa)
        assert torch.equal(other.fc.weight, model.fc.weight)


def test_registered_after_the_plugin() -> None:
    from timm.models import register_model

    def made_late(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        from timm.models.resnet import test_resnet

        return test_resnet(pretrained=pretrained, **kwargs)

    made_late.__module__ = "timm.models.resnet"
    register_model(made_late)
    try:
        assert isinstance(timm.create_model("made_late", head="cos", num_classes=3).fc, CosineLinear)
    finally:
        timm.models._registry._clear_model_entries("made_late")


def test_threads_do_not_mix() -> None:
    wrong: list[str] = []

    def build(cosine: bool) -> None:
        for _ in range(5):
            model = timm.create_model("test_resnet", num_classes=3, **({"head": "cos"} if cosine else {}))
            if isinstance(model.fc, CosineLinear) != cosine:
                wrong.append(type(model.fc).__name__)

    threads = [threading.Thread(target=build, args=(index % 2 == 0,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_listing_and_default_configuration_are_untouched() -> None:
    model = timm.create_model("test_resnet", head="cos")
    assert model.default_cfg["classifier"] == "fc"
    assert model.get_classifier() is model.fc
    assert not [name for name in timm.list_models() if name.endswith("_cos")]
    features = model.forward_head(model.forward_features(torch.randn(2, 3, 64, 64)), pre_logits=True)
    assert features.shape == (2, model.num_features)
    assert isinstance(copy.deepcopy(model).fc, CosineLinear)


@pytest.mark.slow
def test_whole_model_compiles_exports_and_checkpoints() -> None:
    model = timm.create_model("test_vit", head="cos", num_classes=5)
    x = torch.randn(2, *model.pretrained_cfg["input_size"])
    model.set_grad_checkpointing(True)
    model(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.set_grad_checkpointing(False)
    model.eval()
    expected = model(x).detach()
    torch.compiler.reset()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(x), expected)
        torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), expected)


def test_run_any_script_with_the_plugin_on(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, timm\n"
        "if __name__ == '__main__':\n"
        "    model = timm.create_model('test_resnet', head='cos')\n"
        "    print(type(model.fc).__name__, sys.argv[1:])\n"
    )
    assert run_python("-m", "cosify.run", str(script), "--lr", "0.1") == "CosineLinear ['--lr', '0.1']\n"


def test_run_refuses_what_cannot_work(tmp_path: Path) -> None:
    from cosify.run import main

    with pytest.raises(SystemExit, match=r"no_such.py is not a file"):
        main([str(tmp_path / "no_such.py")])
    with pytest.raises(SystemExit, match=r"usage: python -m cosify.run SCRIPT"):
        main([])


STEP = """
import sys, timm, timm.loss, torch
from torch import nn
settings = {"head": "cos"} if "cosine" in sys.argv else {}
model = timm.create_model("test_resnet", num_classes=3, **settings)
x, y = torch.randn(2, 3, 64, 64), torch.tensor([0, 2])
logits = model(x)
dense = nn.functional.one_hot(y, 3).float()
other = nn.Linear(4, 3)(x[:, 0, 0, :4])
(LOSS).backward()
print("trained")
"""
SIGMOID_LOSSES = {
    "timm": "timm.loss.BinaryCrossEntropy()(logits, y)",
    "torch": "nn.BCEWithLogitsLoss()(logits.float(), dense)",
    "function": "nn.functional.binary_cross_entropy_with_logits(input=logits, target=dense)",
    "zlpr": "timm.loss.ZlprLoss()(logits, dense)",
    "multi-label": "timm.loss.AsymmetricLossMultiLabel()(logits, dense)",
}


@pytest.fixture
def run_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run one training step with a loss under cosify.run, in this process, with all patches taken back."""
    from cosify.integrations.sigmoid_guard import _TIMM_LOSSES
    from cosify.run import main

    def run(loss: str, *arguments: str) -> None:
        (tmp_path / "train.py").write_text(STEP.replace("LOSS", loss))
        main([str(tmp_path / "train.py"), *arguments])

    function = torch.nn.functional.binary_cross_entropy_with_logits
    monkeypatch.setattr(torch.nn.functional, "binary_cross_entropy_with_logits", function)
    for name in _TIMM_LOSSES:
        if hasattr(timm.loss, name):
            monkeypatch.setattr(getattr(timm.loss, name), "forward", getattr(timm.loss, name).forward)
    monkeypatch.setattr("sys.argv", [])
    monkeypatch.setattr("sys.path", [])
    return run


@pytest.mark.parametrize("loss", SIGMOID_LOSSES.values(), ids=SIGMOID_LOSSES)
def test_run_refuses_a_sigmoid_loss_where_it_meets_a_cosine_head(
    loss: str, run_step: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"a sigmoid loss .* cannot train a cosine head: it has no bias"):
        run_step(loss, "cosine")
    run_step(loss)  # a stock head, in whatever else the process holds
    assert capsys.readouterr().out == "trained\n"


def test_run_lets_a_softmax_loss_pass(run_step: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    run_step("timm.loss.LabelSmoothingCrossEntropy()(logits, y)", "cosine")
    run_step(
        "nn.CrossEntropyLoss()(logits, y) + timm.loss.BinaryCrossEntropy()(other, y)",
        "cosine",
    )
    assert capsys.readouterr().out == "trained\ntrained\n"


def test_a_stock_model_opens_a_folder_of_weights_alone(tmp_path: Path) -> None:
    stock = timm.create_model("test_resnet", num_classes=4)
    save_file(stock.state_dict(), tmp_path / "model.safetensors")
    cfg = {"source": "local-dir", "file": str(tmp_path), "num_classes": 4}
    again = timm.create_model("test_resnet", pretrained=True, pretrained_cfg=cfg, num_classes=4)
    assert torch.equal(again.fc.weight, stock.fc.weight)
