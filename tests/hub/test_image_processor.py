"""The image processor of a transformers model goes along with its weights, and is never made up."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import timm
import transformers
from huggingface_hub import constants

import cosify
from cosify.data import Preprocessing
from cosify.hub import publish
from cosify.hub.contents import PROCESSOR
from cosify.hub.publish import files_to_publish
from cosify.integrations import cosified
from tests.integrations.tiny_vit import vit

TEXT = '{"image_processor_type": "ViTImageProcessor",\r\n "size": {"height": 32, "width": 32}}'


def opened(folder: Path, processor: bool = True) -> Any:
    """Return a model that transformers has read from a folder."""
    vit().save_pretrained(folder)
    if processor:
        (folder / PROCESSOR).write_bytes(TEXT.encode())
    return cosify.load(folder)


def convert(model: Any) -> Any:
    return cosify.convert(model, kappa=5.0)


@pytest.mark.parametrize("change", [lambda model: model, convert])
def test_it_goes_along(change: Any, tmp_path: Path) -> None:
    saved = cosify.save(change(opened(tmp_path / "own")), tmp_path / "saved")
    assert (saved / PROCESSOR).read_bytes() == TEXT.encode()
    assert {path.name for path in files_to_publish(saved)} == {"config.json", "model.safetensors", PROCESSOR}
    again = cosify.save(cosify.load(saved), saved)  # where it came from
    assert (again / PROCESSOR).read_bytes() == TEXT.encode()


def test_it_goes_along_with_a_wrapped_model(tmp_path: Path) -> None:
    wrapper = cosified.CosifiedForImageClassification
    model = wrapper.from_model(convert(opened(tmp_path / "own")))
    assert (cosify.save(model, tmp_path / "inner") / PROCESSOR).is_file()
    model.save_pretrained(tmp_path / "whole")
    (tmp_path / "whole" / PROCESSOR).write_bytes(b"{}")
    assert (cosify.save(wrapper.from_pretrained(tmp_path / "whole"), tmp_path / "outer") / PROCESSOR).is_file()


def test_it_comes_from_the_cache_of_the_hub_in_the_revision_of_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for commit in "ab":
        snapshot = tmp_path / "hub" / "models--ORG--net" / "snapshots" / (commit * 40)
        snapshot.mkdir(parents=True)
        (snapshot / PROCESSOR).write_text(commit)
    model = vit()
    model.config.name_or_path, model.config._commit_hash = "ORG/net", "b" * 40
    assert (cosify.save(model, tmp_path / "b") / PROCESSOR).read_text() == "b"
    model.config._commit_hash = "c" * 40
    assert not (cosify.save(model, tmp_path / "c") / PROCESSOR).exists()


@pytest.mark.parametrize("is_ours", [False, True])
def test_it_is_of_the_revision_that_was_asked_for(
    is_ours: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForImageClassification

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--ORG--net"
    (repository / "refs").mkdir(parents=True)
    for commit, ref, mean in (("a" * 40, "v1", 0.125), ("b" * 40, "main", 0.875)):
        snapshot = repository / "snapshots" / commit
        if is_ours:
            cosify.save(convert(vit()), snapshot)
        else:
            vit().save_pretrained(snapshot)
        processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[mean] * 3)
        processor.save_pretrained(snapshot)
        (repository / "refs" / ref).write_text(commit)
    plain = AutoModelForImageClassification.from_pretrained("ORG/net", revision="v1")
    for index, (model, mean) in enumerate(
        ((cosify.load("ORG/net@v1"), 0.125), (plain, 0.125), (cosify.load("ORG/net"), 0.875))
    ):
        used = Preprocessing.of_pretrained(model).processor
        assert used is not None
        assert json.loads(used)["image_mean"] == [mean] * 3
        saved = cosify.save(model, tmp_path / str(index))
        assert json.loads((saved / PROCESSOR).read_text())["image_mean"] == [mean] * 3


def test_none_is_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(PROCESSOR).write_text("of something else")
    gone = opened(tmp_path / "gone")
    (tmp_path / "gone").rename(tmp_path / "elsewhere")
    models = (vit(), opened(tmp_path / "without", processor=False), gone, timm.create_model("test_resnet"))
    for index, model in enumerate(models):
        folder = cosify.save(model, tmp_path / str(index))
        assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("processor", [False, True])
def test_publishing_says_that_it_is_missing(
    processor: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(publish, "check_folder", lambda folder: ())
    done = cosify.push(opened(tmp_path / "own", processor), "ORG/net", dry_run=True)
    said = [line for line in caplog.messages if PROCESSOR in line]
    assert (PROCESSOR in dict(done.files), len(said)) == (processor, 0 if processor else 1)
    assert processor or said[0].startswith(f"ORG/net gets no {PROCESSOR}, so transformers' pipeline cannot prepare")
    cosify.push(timm.create_model("test_resnet"), "ORG/net", dry_run=True)
    assert [line for line in caplog.messages if PROCESSOR in line] == said, "timm's models need none"
