"""One kappa that makes probabilities right: in the model, in its folder, and for readers without cosify."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

import cosify
from cosify.data import Preprocessing, load_splits
from cosify.errors import InputError
from cosify.evaluation import FeatureCache, cache_features, calibrate
from cosify.evaluation.feature_cache import CacheInfo, CacheKey
from cosify.functional import cosine
from cosify.heads.cosine_head import stock_rows
from cosify.models.network_identity import model_digest

TRUE_KAPPA = 15.0


def drawn(kappa: float | str, eval_kappa: float | str = "running", num: int = 20_000) -> tuple[nn.Module, FeatureCache]:
    """Return a model and features whose labels are drawn from its softmax at `TRUE_KAPPA`."""
    torch.manual_seed(0)
    model = timm.create_model(
        "test_resnet", head={"type": "cos", "kappa": kappa, "eval_kappa": eval_kappa}, num_classes=10
    ).eval()
    head = model.fc
    embedding = torch.randn(num, head.in_features)
    embedding[:2] = 0  # have no direction
    labels = torch.multinomial((TRUE_KAPPA * cosine(embedding, head.weight.detach())).softmax(dim=1), 1).squeeze(1)
    key = CacheKey(model_digest(model), "drawn", "none")
    names = tuple(str(c) for c in range(10))
    info = CacheInfo(key, num, head.in_features, 10, names, head.inference_kappa(), kappa, eval_kappa)  # type: ignore[arg-type]
    cache = FeatureCache.of_rows(info, head.weight.detach().clone(), None, embedding)
    return model, FeatureCache(**{**vars(cache), "labels": labels.numpy()})


@pytest.mark.parametrize("kappa", ["ls", 60.0, "trainable"])
@pytest.mark.parametrize("eval_kappa", ["running", "sample", 2.0])
def test_the_kappa_that_drew_the_labels_is_found(kappa: float | str, eval_kappa: float | str) -> None:
    model, features = drawn(kappa, eval_kappa)
    found = calibrate(model, features)
    assert found.kappa == pytest.approx(TRUE_KAPPA, rel=0.1)
    assert model.fc.eval_kappa == found.kappa == found.after.kappa
    assert found.after.ece < 0.02 < found.before.ece
    assert found.after.nll < found.before.nll
    assert found.after.accuracy == found.before.accuracy
    assert found.after.num_samples == 10_000
    assert 0 < found.before.kappa < 200
    assert repr(found).startswith(f"kappa {found.before.kappa:.2f} -> {found.kappa:.2f}, ECE ")
    if eval_kappa == 2.0 or (kappa == 60.0 and eval_kappa == "running"):
        assert found.before.kappa == (2.0 if eval_kappa == 2.0 else 60.0)


def test_kappa_is_of_all_classes_also_where_they_take_turns() -> None:
    model, features = drawn("ls", num=4000)
    predicted = features.predictions
    is_right = np.random.default_rng(0).random(4000) < np.where(predicted < 5, 0.95, 0.3)
    labels = np.where(is_right, predicted, (predicted + 1) % 10)
    easy, hard = (np.flatnonzero(each)[:1500] for each in (labels < 5, labels >= 5))
    turns = np.stack([easy, hard], axis=1).reshape(-1)  # even rows are of easy classes, odd ones of hard ones
    embedding, kappas = torch.from_numpy(np.array(features.embedding)), []
    for rows in (turns, np.random.default_rng(1).permutation(turns)):
        cache = FeatureCache.of_rows(features.info, features.weight, None, embedding[rows])
        model.fc.eval_kappa = "running"
        kappas.append(calibrate(model, FeatureCache(**{**vars(cache), "labels": labels[rows]})).kappa)
    assert kappas[0] == pytest.approx(kappas[1], rel=0.1)


def test_the_folder_holds_it_for_readers_with_and_without_cosify(tmp_path: Path) -> None:
    model, features = drawn("ls")
    found, x = calibrate(model, features), torch.randn(4, *model.pretrained_cfg["input_size"])
    cosify.save(model, tmp_path)
    again = cosify.load(tmp_path).eval()
    assert again.fc.eval_kappa == found.kappa
    with torch.no_grad():
        torch.testing.assert_close(again(x), model(x), rtol=1e-4, atol=1e-4)
    state = load_file(tmp_path / "model.safetensors")
    torch.testing.assert_close(
        state["fc.weight"].norm(dim=1) * model.fc.embedding_norm, torch.full((10,), found.kappa), rtol=1e-5, atol=0
    )


def test_no_other_scale_is_better_for_readers_without_cosify() -> None:
    model, features = drawn("ls")
    model.fc.embedding_norm.fill_(3.0)  # as it may be after a training on other pictures
    kappa = calibrate(model, features).kappa
    embedding, labels = torch.from_numpy(np.array(features.embedding)), torch.from_numpy(features.labels)
    stock = stock_rows(model.fc.weight.detach(), kappa, model.fc.embedding_norm)
    nll = [float(F.cross_entropy(embedding @ (scale * stock).T, labels)) for scale in (0.9, 1.0, 1.1)]
    assert nll[1] == min(nll)
    with torch.no_grad():
        cosines = model.fc.eval()(embedding)
    assert float(F.cross_entropy(cosines, labels)) == pytest.approx(nll[1], abs=0.05)


def test_features_of_before_are_of_another_model() -> None:
    model, features = drawn("ls")
    calibrate(model, features)
    with pytest.raises(InputError, match="the features are of another model, or of this one before it changed"):
        calibrate(model, features)


def all_right() -> tuple[nn.Module, FeatureCache]:
    model, features = drawn("ls")
    return model, FeatureCache(**{**vars(features), "labels": features.predictions})


def a_stock_head() -> tuple[nn.Module, FeatureCache]:
    return timm.create_model("test_resnet", num_classes=10), drawn("ls")[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (all_right, "no kappa from 0.001 to 10000.0 is the best for these 10000 samples: all of them are right"),
        (a_stock_head, "the classifier is a Linear, expected a cosine head"),
        (lambda: drawn("ls", num=19), "19 samples came, expected at least 20"),
    ],
)
def test_errors(given: Callable[[], tuple[nn.Module, FeatureCache]], message: str) -> None:
    model, features = given()
    before = cosify.find_heads(model)["fc"].eval_kappa if cosify.find_heads(model) else None
    with pytest.raises(InputError, match=message):
        calibrate(model, features)
    if before is not None:
        assert model.fc.eval_kappa == before


def test_of_images(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", head="cos", kappa=60.0, num_classes=10)
    images = load_splits("digits").only("test", 200)
    features = cache_features(model, images, Preprocessing.of_pretrained(model), tmp_path)
    found = cosify.calibrate(model, features)
    assert found.kappa < 60  # a random network is sure of nothing
