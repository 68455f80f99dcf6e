"""What the training commands leave in `export/`."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

import cosify
from cosify.console.training import export
from cosify.hub.export import fitted_kappa, holds_weights_of
from cosify.training import TrainArguments, TrainResult, train
from cosify.training.run_folder import RunFolder

ARGUMENTS = TrainArguments(epochs=1, limit_train=64, batch_size=32, model="test_resnet", image_size=32)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module", params=["cos", "linear"])
def result(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    found = train(replace(ARGUMENTS, head=request.param, output=str(tmp_path_factory.mktemp("run"))))
    export(found)
    return found


def calibrated(folder: Path) -> None:
    """Give an export what `cosify evaluate --calibrate --rejector` leaves there, and a file of the user."""
    model = cosify.load(folder)
    for head in cosify.find_heads(model).values():
        head.eval_kappa = 7.5
    cosify.save(model, folder)
    for name in ("rejector.json", "rejector-0123456789abcdef.safetensors", "notes.txt"):
        (folder / name).write_text("{}", encoding="utf-8")


@pytest.mark.slow
def test_a_run_that_is_resumed_after_its_end_leaves_what_was_fitted_since(
    result: TrainResult, caplog: pytest.LogCaptureFixture
) -> None:
    folder = result.folder.export
    calibrated(folder)
    before = files_of(folder)
    again = train(TrainArguments(resume=str(result.folder.path)))
    with caplog.at_level(logging.INFO, "cosify"):
        export(again)
    assert files_of(folder) == before
    assert f"{folder} holds these weights already, and stays as it is" in caplog.messages


def test_what_was_fitted_to_other_weights_does_not_outlive_them(
    result: TrainResult, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = replace(result, folder=RunFolder(tmp_path))
    folder = Path(shutil.copytree(result.folder.export, place.folder.export))
    calibrated(folder)
    is_cosine = fitted_kappa(folder) == 7.5
    with torch.no_grad():
        next(result.model.parameters()).add_(1.0)
        assert not holds_weights_of(folder, result.model)
        export(place)
        next(result.model.parameters()).sub_(1.0)
    assert {"config.json", "model.safetensors", "notes.txt"} == set(files_of(folder))
    assert fitted_kappa(folder) is None
    what = "the kappa that --calibrate fitted and the rejector" if is_cosine else "the rejector"
    verb = "were" if is_cosine else "was"
    assert f"{what} in {folder} {verb} of the weights before, and no longer there; fit anew" in caplog.messages


def test_a_folder_that_is_no_whole_model_holds_no_weights(result: TrainResult, tmp_path: Path) -> None:
    assert not holds_weights_of(tmp_path / "none", result.model)
    assert holds_weights_of(cosify.save(result.model, tmp_path), result.model)
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    assert not holds_weights_of(tmp_path, result.model)


def test_another_kind_of_head_holds_other_weights(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", head="cos", kappa=20, num_classes=3)
    assert holds_weights_of(cosify.save(model, tmp_path), model)
    assert not holds_weights_of(tmp_path, timm.create_model("test_resnet", num_classes=3))
    with torch.no_grad():
        cosify.find_heads(model)["fc"].weight[0].mul_(-1)
    assert not holds_weights_of(tmp_path, model)
