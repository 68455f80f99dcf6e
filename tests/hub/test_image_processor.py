"""The image processor of a transformers model goes along with its weights, and is never made up."""

import os
from pathlib import Path
from typing import Any

import pytest
import timm
from huggingface_hub import constants

import cosify
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
