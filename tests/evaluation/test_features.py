"""Caches hold what the live model says, are used again while nothing changed, and never when something did."""

import dataclasses
import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from filelock import FileLock
from torch import nn

import cosify
from cosify.data import Preprocessing, Splits, load_splits, open_data
from cosify.data.open import PipelineSettings
from cosify.errors import InputError
from cosify.evaluation import FeatureCache, FeaturePass, StaleCacheError, assess, cache_features, check_label_names
from cosify.evaluation.cache_writer import CacheWriter
from cosify.evaluation.feature_cache import TOP
from cosify.evaluation.features import cache_key
from cosify.folders import put_in_place
from cosify.models import in_evaluation, linear_classifier, network_identity
from cosify.models.network_identity import model_digest, same_network
from tests.killing import killed
from tests.processes import run_distributed

PREPROCESSING = Preprocessing(32, 32, mean=(0.5,), std=(0.25,), channels=1)


def small_model(head: str = "cos", seed: int = 0, **settings: object) -> nn.Module:
    torch.manual_seed(seed)
    model: nn.Module = timm.create_model("test_resnet", in_chans=1, num_classes=10, head=head, **settings)
    if head == "cos":
        model(torch.randn(8, 1, 32, 32))  # sets kappa
    return model.eval()


@pytest.fixture(scope="module")
def images() -> Splits:
    return load_splits("digits").only("test", 70)


@pytest.mark.parametrize("head", ["cos", "linear"])
def test_a_cache_holds_what_the_model_says(head: str, images: Splits, tmp_path: Path) -> None:
    model = small_model(head)
    model.train()
    cache = cache_features(model, images, PREPROCESSING, tmp_path / "cache", FeaturePass(batch_size=16))
    assert model.training
    data = open_data(images, PipelineSettings(augment="none"), PREPROCESSING, data="", device=torch.device("cpu"))
    classifier = linear_classifier(model)
    with torch.no_grad(), in_evaluation(model, classifier) as answers:
        parts = [(*answers(pixels), labels) for pixels, labels in data.test_batches(16)]
    embedding, logits, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    assert torch.equal(torch.from_numpy(np.array(cache.embedding)), embedding)
    assert np.array_equal(cache.labels, labels.numpy())
    assert np.array_equal(cache.predictions, logits.argmax(dim=1).numpy())
    again = torch.cat(list(cache.logits()))
    torch.testing.assert_close(again, logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.from_numpy(np.array(cache.max_logit)), logits.amax(dim=1))
    torch.testing.assert_close(torch.from_numpy(np.array(cache.max_probability)), logits.softmax(dim=1).amax(dim=1))
    torch.testing.assert_close(torch.from_numpy(np.array(cache.log_sum_exp)), logits.logsumexp(dim=1))
    cosines = cosify.functional.cosine(embedding, classifier.weight).sort(dim=1, descending=True)
    torch.testing.assert_close(torch.from_numpy(np.array(cache.top_cosine)), cosines.values[:, :TOP].detach())
    torch.testing.assert_close(torch.from_numpy(cache.norm), embedding.double().norm(dim=1))
    assert torch.equal(cache.ls_kappa(), cosify.functional.ls_kappa(embedding, classifier.weight))
    assert (cache.info.kappa is None) == (head == "linear")
    assert (cache.bias is None) == (head == "cos")


def test_a_cache_is_used_again_until_something_changes(
    images: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, folder = small_model(), tmp_path / "cache"
    cache_features(model, images, PREPROCESSING, folder)
    made = (folder / "bank.json").stat().st_mtime_ns
    assert FeatureCache.open(str(folder)).info == FeatureCache.open(folder).info

    def remade() -> bool:
        nonlocal made
        before, made = made, (folder / "bank.json").stat().st_mtime_ns
        return made != before

    with caplog.at_level("INFO", logger="cosify"):
        cache_features(small_model(), images, PREPROCESSING, folder)  # equal weights in another object
        assert not remade()
        with torch.no_grad():
            model.fc.weight[0, 0] += 1e-3  # type: ignore[union-attr,index,operator]
        cache_features(model, images, PREPROCESSING, folder)
        assert remade()
        assert "is of another model; it is made anew" in caplog.text
        cache_features(model, load_splits("digits").only("test", 71), PREPROCESSING, folder)
        assert remade()
        assert "is of another data" in caplog.text
        cache_features(
            model, load_splits("digits").only("test", 71), dataclasses.replace(PREPROCESSING, image_size=40), folder
        )
        assert remade()
        assert "is of another transform" in caplog.text


def test_kappa_and_batch_norm_are_part_of_the_model() -> None:
    model = small_model()
    before = model_digest(model)
    assert before == model_digest(small_model())
    model.fc.kappa.mul_(2)  # type: ignore[union-attr,operator]
    assert model_digest(model) != before
    model = small_model()
    model.train()(torch.randn(8, 1, 32, 32))
    assert model_digest(model) != before


def test_files_that_change_make_another_key(tmp_path: Path) -> None:
    model = small_model()
    splits = load_splits("digits")
    splits.train.to_parquet(tmp_path / "train.parquet")
    splits.test.to_parquet(tmp_path / "test.parquet")
    key = cache_key(model, load_splits(str(tmp_path)).only("test"), PREPROCESSING)
    assert key == cache_key(model, load_splits(str(tmp_path)).only("test"), PREPROCESSING)
    splits.test.select(range(596)).to_parquet(tmp_path / "test.parquet")
    assert key.data != cache_key(model, load_splits(str(tmp_path)).only("test"), PREPROCESSING).data


@pytest.mark.slow
def test_two_processes_make_the_cache_of_one(images: Splits, tmp_path: Path) -> None:
    run_distributed("tests.evaluation.features_worker", tmp_path / "two", 2)
    one = cache_features(small_model(), images, PREPROCESSING, tmp_path / "one", FeaturePass(batch_size=16))
    two = FeatureCache.open(tmp_path / "two", one.info.key)
    assert two.info == one.info
    assert np.array_equal(one.labels, two.labels)
    assert np.array_equal(one.predictions, two.predictions)
    np.testing.assert_allclose(one.embedding, two.embedding, rtol=1e-5, atol=1e-6)


def test_a_pass_that_broke_off_leaves_no_cache(images: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(CacheWriter, "write", full)
        with pytest.raises(OSError, match="No space left"):
            cache_features(small_model(), images, PREPROCESSING, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    assert len(cache_features(small_model(), images, PREPROCESSING, tmp_path / "cache")) == 70
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == ["cache"]


def test_damaged_caches_are_named_and_made_anew(images: Splits, tmp_path: Path) -> None:
    model, folder = small_model(), tmp_path / "cache"
    cache = cache_features(model, images, PREPROCESSING, folder)
    key, labels = cache.info.key, np.array(cache.labels)
    for file, damage in {
        "embedding.npy": b"\x93NUMPY",
        "bank.json": b"{",
        "classifier.safetensors": b"",
        "labels.npy": (folder / "predictions.npy").read_bytes()[:-8],
    }.items():
        del cache
        (folder / file).write_bytes(damage)
        with pytest.raises(StaleCacheError, match="cannot be read"):
            FeatureCache.open(folder, key)
        cache = cache_features(model, images, PREPROCESSING, folder)
        assert np.array_equal(cache.labels, labels)
    np.save(folder / "labels.npy", labels[:-1])
    with pytest.raises(StaleCacheError, match="has arrays of shapes"):
        FeatureCache.open(folder)
    info = json.loads((folder / "bank.json").read_text())
    (folder / "bank.json").write_text(json.dumps({**info, "format": 99}))
    with pytest.raises(StaleCacheError, match="another version"):
        FeatureCache.open(folder)
    with pytest.raises(FileNotFoundError, match=r"holds no bank\.json"):
        FeatureCache.open(tmp_path)


def test_caches_are_not_loaded_into_memory(images: Splits, tmp_path: Path) -> None:
    cache = cache_features(small_model(), images, PREPROCESSING, tmp_path / "cache")
    assert isinstance(cache.embedding, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        cache.embedding[0, 0] = 1


def test_a_model_without_a_classifier_is_refused(images: Splits, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no classifier"):
        cache_features(
            timm.create_model("test_resnet", num_classes=0, in_chans=1), images, PREPROCESSING, tmp_path / "cache"
        )


def test_transformers_models_have_caches_too(images: Splits, tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    settings = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(image_size=32, patch_size=16, num_labels=10, num_channels=1, **settings)
    model = cosify.convert(ViTForImageClassification(config), kappa=7)
    cache = cache_features(model, images, PREPROCESSING, tmp_path / "cache")
    assert cache.embedding.shape == (70, 16)
    assert cache.info.kappa == 7.0
    assert cache.max_logit.max() <= 7.0


def test_what_no_weight_shows_is_part_of_the_model() -> None:
    model = small_model()
    before = model_digest(model)
    model.fc.eval_kappa = "sample"  # type: ignore[union-attr,assignment]
    assert model_digest(model) != before
    assert model_digest(small_model(act_layer="gelu")) != before


VIT = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 2, "num_classes": 10}
OTHER_VITS: dict[str, dict[str, Any]] = {
    "average": {"global_pool": "avg", "fc_norm": False},
    "maximum": {"global_pool": "max", "fc_norm": False},
    "average with the class token": {"global_pool": "avg", "fc_norm": False, "pool_include_prefix": True},
    "heads": {"num_heads": 4},
}


@pytest.mark.parametrize("wrapped", [False, True])
def test_pooling_and_attention_heads_are_part_of_the_model(wrapped: bool) -> None:
    def digest(**settings: Any) -> str:
        torch.manual_seed(0)
        model = timm.create_model("vit_tiny_patch16_224", **{**VIT, **settings})
        return model_digest(nn.ModuleDict({"timm_model": model}) if wrapped else model)

    digests = [digest(), *(digest(**settings) for settings in OTHER_VITS.values())]
    assert digest() == digests[0]
    assert len(set(digests)) == len(digests)
    assert not any(same_network(digests[0], other) for other in digests[1:])


@pytest.mark.slow
@pytest.mark.parametrize("module", sorted(timm.list_modules()))
def test_every_pooling_that_is_a_string_is_part_of_the_model(module: str) -> None:
    names = timm.list_models(module=module)
    small = [name for name in names if any(word in name for word in ("test", "tiny", "nano", "small", "_s", "_xxs"))]
    with torch.device("meta"):
        model = timm.create_model((small or names)[0])
    if isinstance(getattr(model, "global_pool", None), str):
        before = list(network_identity.plain_attributes(model))
        model.global_pool = "another"
        assert list(network_identity.plain_attributes(model)) != before


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet18_cifar", "tf_efficientnet_lite0", "efficientnet_b0"])
def test_plain_networks_have_nothing_to_add(name: str) -> None:
    with torch.device("meta"):
        assert list(network_identity.plain_attributes(timm.create_model(name))) == [], (
            "their published digests would change"
        )


def test_a_saved_model_is_the_same_network(tmp_path: Path) -> None:
    model = small_model()
    cosify.save(model, tmp_path)
    again = model_digest(cosify.load(tmp_path))
    assert again != model_digest(model), "rows of the head have another length"
    assert same_network(again, model_digest(model))
    assert not same_network(again, model_digest(small_model(seed=1)))


def test_kappa_of_each_sample_is_that_of_the_head(images: Splits, tmp_path: Path) -> None:
    model = small_model(head={"type": "cos", "eval_kappa": "sample"})  # type: ignore[arg-type]
    cache = cache_features(model, images, PREPROCESSING, tmp_path / "cache")
    assert cache.info.eval_kappa == "sample"
    assert cache.info.output_is_classifier
    logits = torch.cat(list(cache.logits()))
    torch.testing.assert_close(logits.amax(dim=1), torch.from_numpy(np.array(cache.max_logit)), rtol=1e-5, atol=1e-5)
    again = FeatureCache.of_rows(cache.info, cache.weight, cache.bias, torch.from_numpy(np.array(cache.embedding)))
    np.testing.assert_allclose(again.max_probability, cache.max_probability, rtol=1e-5)


def test_a_model_with_two_heads_has_no_logits_from_embeddings(images: Splits, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model(
        "deit_tiny_distilled_patch16_224", img_size=32, patch_size=16, in_chans=1, num_classes=10, depth=1
    )
    torch.nn.init.normal_(model.head.weight)
    torch.nn.init.normal_(model.head_dist.weight)
    cache = cache_features(model, images, PREPROCESSING, tmp_path / "cache")
    assert not cache.info.output_is_classifier
    with pytest.raises(ValueError, match="not those of its classifier"):
        next(cache.logits())
    with pytest.raises(ValueError, match="not those of its classifier"):
        FeatureCache.of_rows(cache.info, cache.weight, cache.bias, torch.zeros(1, cache.info.dim))
    assert assess("two heads", cache, resamples=100).calibration == {}


def test_one_cache_is_made_by_one_program_at_a_time(images: Splits, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".cache.lock"), pytest.raises(ValueError, match="is being made by another program"):
        cache_features(small_model(), images, PREPROCESSING, tmp_path / "cache")
    assert len(cache_features(small_model(), images, PREPROCESSING, tmp_path / "cache")) == 70


def test_a_model_that_gives_nan_is_named(images: Splits, tmp_path: Path) -> None:
    model = small_model("linear")
    with torch.no_grad():
        model.fc.weight[0] = torch.nan  # type: ignore[union-attr,index,operator]
    with pytest.raises(ValueError, match="NaN or infinity for images in rows 0 to 31"):
        cache_features(model, images, PREPROCESSING, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_names_in_another_order_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, names = small_model(), [f"class {c}" for c in range(10)]
    check_label_names(model, names)
    cosify.save(model, tmp_path, label_names=names)
    model = cosify.load(tmp_path)
    check_label_names(model, names)
    caplog.clear()
    check_label_names(model, names)
    check_label_names(model, names[:3])  # other classes: a transfer
    assert caplog.text == ""
    check_label_names(model, [f"{name}!" for name in names])
    assert caplog.messages == [
        "the model's classes have other names than the data's: 'class 0', 'class 1', 'class 2', 'class 3', 'class 4',"
        " and 5 more in the place of 'class 0!', 'class 1!', 'class 2!', 'class 3!', 'class 4!', and 5 more"
    ]
    with pytest.raises(ValueError, match="another order than the data's: class 0 is 'class 0' there and 'class 9'"):
        check_label_names(model, names[::-1])
    renamed = "other names than the data's: 'class 0' in the model alone, 'last' in the data alone, so that class 0 is"
    with pytest.raises(ValueError, match=f"{renamed} 'class 0' there and 'class 1' here, expected the same; name the"):
        check_label_names(model, [*names[1:], "last"])
    with pytest.raises(ValueError, match="class 3 is 'class 3' there and 'class 4' here"):
        check_label_names(model, ["a", "b", "c", "class 4", *names[5:9], "d", "e"])


@pytest.mark.parametrize(
    "files", [["notes.txt"], ["bank.json"], ["labels.npy", "embedding.npy"], ["bank.json", "labels.npy", "photo.png"]]
)
def test_a_folder_of_the_users_is_never_replaced(files: list[str], images: Splits, tmp_path: Path) -> None:
    folder = tmp_path / "mydata"
    folder.mkdir()
    for name in files:
        (folder / name).write_text('{"balance": 3}')
    with pytest.raises(
        InputError, match=r"mydata holds \[.*\], which is no feature cache of cosify, .*; choose another folder"
    ):
        cache_features(small_model(), images, PREPROCESSING, folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)


def test_nothing_beside_a_cache_is_taken_for_ours(images: Splits, tmp_path: Path) -> None:
    folder, user = tmp_path / "cache", tmp_path / ".cache.new"
    user.mkdir()
    (user / "thesis.tex").write_text("x")
    with pytest.raises(OSError, match=r"the feature cache .* cannot be made \(File exists: .*\.cache\.new\)"):
        cache_features(small_model(), images, PREPROCESSING, folder)
    assert (user / "thesis.tex").read_text() == "x"
    (user / "thesis.tex").rename(tmp_path / "thesis.tex")
    cache_features(small_model(), images, PREPROCESSING, folder)
    (folder / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="which is no feature cache of cosify"):
        cache_features(small_model(seed=1), images, PREPROCESSING, folder)
    assert (folder / "mine.txt").is_file()


@pytest.mark.parametrize("rename", [None, 0, 1], ids=["in the write", "with its classifier", "with its description"])
def test_what_a_killed_pass_leaves_is_in_nobodys_way(rename: int | None, images: Splits, tmp_path: Path) -> None:
    def run() -> None:
        cache_features(small_model(), images, PREPROCESSING, tmp_path / "cache")

    killed(run, rename=rename)
    assert len(list((tmp_path / ".cache.new").glob(".*.new/*"))) == 1
    run()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".cache.lock", "cache"]


def test_a_full_disk_is_said_before_the_pass(images: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"cannot be made \(No space left on device: .* room for 70 rows .* make room"):
        cache_features(small_model(), images, PREPROCESSING, tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == [".cache.lock"], "something half-written is left"


def test_arrays_are_those_of_the_key_also_while_a_cache_is_replaced(
    images: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    other = cache_features(small_model(seed=1), images, PREPROCESSING, tmp_path / "other")
    one = cache_features(small_model(), images, PREPROCESSING, folder)
    load, replacements = np.load, [tmp_path / "other"]

    def replaced_meanwhile(file: Path, **settings: Any) -> Any:
        if file.name == "embedding.npy" and replacements:
            put_in_place(replacements.pop(), folder)
        return load(file, **settings)

    monkeypatch.setattr(np, "load", replaced_meanwhile)
    with pytest.raises(StaleCacheError, match="is of another model"):
        FeatureCache.open(folder, one.info.key)
    replacements.append(tmp_path / "other")  # where the first one is now
    found = FeatureCache.open(folder)
    assert found.info.key == one.info.key
    assert np.array_equal(found.embedding, one.embedding)
    assert not np.array_equal(found.embedding, other.embedding)


def test_batches_follow_the_device() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    sides = (8, 96, 160, 224, 1000)
    assert [FeaturePass().at_once(cpu, (3, side, side)) for side in sides] == [32, 32, 15, 8, 1]
    assert [FeaturePass().at_once(cuda, (3, side, side)) for side in sides] == 5 * [256]
    assert [FeaturePass(batch_size=7).at_once(device, (3, 8, 8)) for device in (cpu, cuda)] == [7, 7]
