"""Conversion in place: which layers, what is kept, what later calls do."""

import copy
import io
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3, reparameterize_model
from torch import nn

import cosify
from cosify.heads import CosineConv1x1, CosineHead, CosineLinear
from cosify.models import apply_spec
from tests.processes import run_python

# One architecture of each kind of classifier that timm has, small enough to run for real.
KINDS = {
    "test_resnet": ["fc"],
    "test_vit": ["head"],
    "test_vit3": ["head"],
    "test_efficientnet": ["classifier"],
    "test_convnext": ["head.fc"],
    "caformer_s18": ["head.fc.fc2"],
    "volo_d1_224": ["head", "aux_head"],
    "test_nfnet": ["head.fc"],
    "levit_128s": ["head.linear", "head_dist.linear"],
    "repvit_m0_9": ["head.head.l", "head.head_dist.l"],
    "deit_tiny_distilled_patch16_224": ["head", "head_dist"],
    "crossvit_tiny_240": ["head.0", "head.1"],
    "efficientvim_m1": ["heads.0", "heads.1", "heads.2", "heads.3"],
    "efficientvit_b0": ["head.classifier.4"],
    "efficientvit_m0": ["head.linear"],
    "poolformerv2_s12": ["head.fc"],
    "dla46x_c": ["fc"],
    "dpn48b": ["classifier"],
    "resnetv2_50x1_bit": ["head.fc"],
    "shvit_s1": ["head.l"],
    "tiny_vit_5m_224": ["head.fc"],
    "ghostnet_050": ["classifier"],
    "xception41": ["head.fc"],
}


def tiny(name: str = "test_resnet", **settings: object) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, **settings)


def images(model: nn.Module, num_rows: int = 2) -> torch.Tensor:
    shape = model.pretrained_cfg["input_size"]
    return torch.randn(num_rows, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_classifier(name: str) -> None:
    """Weights kept, every head used, cosines bounded, reset and back; on meta, as most are not small."""
    with torch.device("meta"):
        model = timm.create_model(name).eval()
        leaves = cosify.find_classifiers(model)
        assert sorted(leaves) == sorted(KINDS[name])
        weights = {path: leaf.weight for path, leaf in leaves.items()}
        assert cosify.convert(model) is model
        heads = cosify.find_heads(model)
        assert sorted(heads) == sorted(KINDS[name])
        assert all(heads[path].weight is weights[path] for path in heads)
        called: list[str] = []
        for path, head in heads.items():
            head.register_forward_hook(lambda *_, path=path: called.append(path))
        assert model(images(model).to("meta")).shape == (2, model.num_classes)
        assert sorted(called) == sorted(heads)
        model.reset_classifier(7)
        assert {head.num_classes for head in cosify.find_heads(model).values()} == {7}
        assert model(images(model).to("meta")).shape == (2, 7)


@pytest.mark.parametrize("name", [name for name in timm.list_models("test_*")])
def test_every_tiny_timm_model_trains_and_keeps_its_labels(name: str) -> None:
    settings = {} if timm.get_pretrained_cfg(name).num_classes else {"num_classes": 10}
    model = cosify.convert(tiny(name, **settings))
    x, num_classes = images(model), model.num_classes
    labels = torch.tensor([1, 2])
    before = {key: value.clone() for key, value in model.named_parameters()}
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.1, weight_decay=1e-4)
    F.cross_entropy(model(x), labels).backward()
    for path, head in cosify.find_heads(model).items():
        assert head.weight.grad is not None, path
        assert head.weight.grad.abs().sum() > 0, path
        assert head.last_kappa is not None, path
    optimizer.step()
    assert sum(not torch.equal(before[key], value) for key, value in model.named_parameters()) > len(before) / 2
    model.eval()
    logits = model(x)
    assert logits.shape == (2, num_classes)
    assert logits.dtype == torch.float32
    (head,) = cosify.find_heads(model).values()
    assert (logits.abs() <= head.kappa * (1 + 1e-5)).all()


def test_weight_is_kept_and_bias_dropped_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="cosify"):
        cosify.convert(tiny(), num_classes=4)  # of a new layer none is lost
    assert not caplog.messages
    model = tiny()
    weight = model.fc.weight
    with caplog.at_level(logging.INFO, logger="cosify"):
        cosify.convert(model, kappa=30.0)
    assert model.fc.weight is weight
    assert isinstance(model.fc, CosineLinear)
    assert model.fc.bias is None
    assert "fc: cosine head, kappa=30.0, bias dropped" in caplog.text


def test_new_number_of_classes() -> None:
    model = cosify.convert(tiny(), num_classes=4)
    assert model.num_classes == 4
    assert model(images(model)).shape == (2, 4)
    headless = cosify.convert(tiny(num_classes=0), num_classes=4)
    assert headless(images(headless)).shape == (2, 4)


def test_the_same_number_of_classes_is_a_new_classifier_too() -> None:
    model = cosify.convert(tiny(num_classes=4))
    model(images(model, 4))
    weight, trained = model.fc.weight, model.fc.kappa.item()
    cosify.convert(model, num_classes=4)
    assert not torch.equal(model.fc.weight, weight)
    assert model.fc.kappa.item() == pytest.approx(cosify.functional.expected_kappa(4)) != trained


def test_policy_can_be_changed() -> None:
    model = cosify.convert(tiny())
    weight = model.fc.weight
    cosify.convert(model, kappa=12.5)
    assert model.fc.kappa_spec == 12.5
    assert model.fc.weight is weight
    model.reset_classifier(5)
    assert model.fc.kappa_spec == 12.5


def test_a_number_of_numpy_is_saved_like_any_other(tmp_path: Path) -> None:
    kappas = np.array([7.5, 8.5], np.float32)
    model = cosify.convert(tiny(num_classes=4), kappa=2 * kappas.mean(), eval_kappa=np.int64(20))
    cosify.save(model, tmp_path / "model")
    (head,) = cosify.find_heads(cosify.load(tmp_path / "model")).values()
    assert (head.kappa_spec, head.eval_kappa) == (16.0, 20)
    assert head.kappa.item() == 16


def test_reset_classifier() -> None:
    model, plain = cosify.convert(tiny(), kappa=9.0), tiny()
    model.reset_classifier(0)
    assert not cosify.find_heads(model)
    assert model(images(model)).ndim == 2
    model.reset_classifier(3, "max")
    assert model.fc.kappa_spec == 9.0
    assert model(images(model)).shape == (2, 3)
    plain.reset_classifier(3)
    assert type(plain.fc) is nn.Linear


@pytest.mark.parametrize(("kappa", "num_classes"), [("ls", 1), ("adacos", 2)])
def test_a_reset_to_too_few_classes_leaves_the_head(kappa: str, num_classes: int) -> None:
    model = timm.create_model("test_resnet", head={"type": "cos", "kappa": kappa}, num_classes=5)
    head = model.fc
    with pytest.raises(ValueError, match=f"num_classes is {num_classes}, expected at least {num_classes + 1}"):
        model.reset_classifier(num_classes)
    assert model.fc is head


def test_copies_of_a_model_keep_the_head_through_reset() -> None:
    model = cosify.convert(tiny(), kappa=9.0)
    model(images(model))
    model.eval()
    expected = model(images(model))
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(buffer, weights_only=False),
        ModelEmaV3(model).module,
    ):
        assert torch.equal(other(images(model)), expected)
        other.reset_classifier(6)
        assert isinstance(other.fc, CosineLinear)
        assert other.fc.kappa_spec == 9.0


def test_unpickled_in_a_new_process_the_model_still_resets_to_cosine(tmp_path: object) -> None:
    file = f"{tmp_path}/model.pt"
    torch.save(cosify.convert(tiny(), kappa=9.0), file)
    code = f"import torch; m = torch.load({file!r}, weights_only=False); m.reset_classifier(6); print(m.fc)"
    assert "CosineLinear" in run_python("-c", code)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["levit_128s", "repvit_m0_9", "efficientvit_m0", "shvit_s1"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # timm registers these models with its own notes
def test_fuse_does_not_lose_the_head(name: str) -> None:
    model = cosify.convert(tiny(name, num_classes=10)).eval()
    x = images(model)
    with torch.no_grad():
        expected = model(x)
        fused = reparameterize_model(model)
        assert sorted(cosify.find_heads(fused)) == sorted(cosify.find_heads(model))
        assert sum(1 for _ in fused.modules()) < sum(1 for _ in model.modules()), "nothing was fused at all"
        torch.testing.assert_close(fused(x), expected, rtol=1e-4, atol=1e-4)
        plain = tiny(name, num_classes=10).eval()
        assert not cosify.find_heads(reparameterize_model(plain))


def test_convolutional_classifier_and_dense_maps() -> None:
    model = cosify.convert(tiny("dla46x_c", num_classes=6)).eval()
    assert isinstance(model.fc, CosineConv1x1)
    with torch.no_grad():
        assert model(torch.randn(2, 3, 64, 64)).shape == (2, 6)
        dense = cosify.convert(timm.create_model("dla46x_c", num_classes=6, global_pool="")).eval()
        assert dense(torch.randn(2, 3, 64, 64)).shape == (2, 6, 2, 2)


def test_optimizer_leaves_log_kappa_without_weight_decay() -> None:
    model = cosify.convert(tiny(), kappa="trainable")
    groups = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.1).param_groups
    (group,) = [group for group in groups if any(p is model.fc.log_kappa for p in group["params"])]
    assert group["weight_decay"] == 0.0


def test_clip_projection_warns(caplog: pytest.LogCaptureFixture) -> None:
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_clip_224.openai")
        assert model.num_classes in (512, 768)
        cosify.convert(model)
        assert "are an image projection, not classes; pass num_classes" in caplog.text
        caplog.clear()
        cosify.convert(timm.create_model("vit_base_patch16_clip_224.openai"), num_classes=10)
        assert not caplog.records


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # torch retires this API
def test_dynamic_quantisation_leaves_the_head_alone() -> None:
    from torch.ao.quantization import quantize_dynamic

    model = cosify.convert(tiny("test_vit", num_classes=5)).eval()
    quantised = quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    assert isinstance(quantised.head, CosineHead)
    assert (quantised(images(model)).argmax(1) == model(images(model)).argmax(1)).all()


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"has no classifier \(num_classes=0\).*convert\(model, num_classes=...\)"):
        cosify.convert(tiny(num_classes=0))
    with pytest.raises(ValueError, match=r"num_classes is 1, expected at least 2"):
        cosify.convert(tiny(num_classes=1))
    with pytest.raises(TypeError, match=r"Sequential is neither a timm nor a transformers model.*CosineLinear"):
        cosify.convert(nn.Sequential(nn.Linear(3, 4)))
    with torch.device("meta"), pytest.raises(ValueError, match=r"is an encoder without a classifier"):
        cosify.convert(timm.create_model("qwen3_vit_88m_enc"), num_classes=10)
    model = tiny()
    with pytest.raises(ValueError, match=r"unknown kappa policy 'nope'"):
        cosify.convert(model, kappa="nope")
    assert type(model.fc) is nn.Linear, "a refused conversion must leave the model as it was"


def test_model_without_classes_remembers_the_head_for_its_reset() -> None:
    model = apply_spec(tiny(num_classes=0), cosify.heads.HeadSpec(7.0))
    model.reset_classifier(4)
    assert model.fc.kappa_spec == 7.0


def test_refused_conversion_keeps_the_classifier_whatever_was_asked() -> None:
    model = tiny(num_classes=6)
    weight = model.fc.weight
    for settings in (
        {"kappa": "adacos", "num_classes": 2},
        {"num_classes": 1},
        {"num_classes": 0},
        {"num_classes": -3},
    ):
        with pytest.raises(ValueError, match=r"num_classes is -?\d, expected at least"):
            cosify.convert(model, **settings)
    assert model.fc.weight is weight
    headless = tiny(num_classes=0)
    with pytest.raises(ValueError, match="has no classifier"):
        cosify.convert(headless)
    headless.reset_classifier(5)
    assert type(headless.fc) is nn.Linear


def test_converting_again_with_the_same_policy_goes_on_from_its_kappa() -> None:
    model = cosify.convert(tiny(num_classes=6))
    model(images(model, 4))
    kappa, norm = model.fc.kappa.clone(), model.fc.embedding_norm.clone()
    cosify.convert(model, eval_kappa="sample")
    assert torch.equal(model.fc.kappa, kappa)
    assert torch.equal(model.fc.embedding_norm, norm)
