"""A run that goes on has the data and the pipeline that it began with."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from cosify.data import Preprocessing
from cosify.data import open as opening
from cosify.training import TrainArguments
from cosify.training.data_record import from_main
from cosify.training.resumed import as_begun
from cosify.training.run_folder import read_config
from cosify.training.seen_images import load_measured, told_leak
from cosify.training.session import Session
from tests.data.folders import image_folder, picture

EXPECTS = Preprocessing(None, 8)


def begin(data: Path, run: Path, **settings: Any) -> Session:
    args = TrainArguments(data=str(data), batch_size=4, tracker="none", output=str(run), **settings)
    return Session.open(args, "run", EXPECTS)


def resume(run: Path) -> Session:
    return Session.open(as_begun(TrainArguments(resume=str(run))), "run", EXPECTS)


def test_other_data_are_refused_with_what_changed(tmp_path: Path) -> None:
    data, run = image_folder(tmp_path / "data"), tmp_path / "run"
    begin(data, run)
    resume(run)
    picture(1000).save(data / "train" / "dog" / "new.png")
    for number, file in enumerate((data / "test").rglob("*.png")):
        picture(2000 + number).save(file)
    before = (run / "config.json").read_text()
    message = (
        r"data '.*data' are not those that run .*run was started with: split 'train' has 9 images \(8 before\); some"
        r" images of split 'test' are different; put them back as they were, or start a new run"
    )
    with pytest.raises(ValueError, match=message):
        resume(run)
    assert (run / "config.json").read_text() == before


def test_a_run_keeps_the_split_that_it_is_evaluated_on(tmp_path: Path) -> None:
    data, run = image_folder(tmp_path / "data"), tmp_path / "run"
    for name in ("cat", "dog"):
        (data / "val" / name).mkdir(parents=True)
        for number in range(3):
            picture(500 + number).save(data / "val" / name / f"{number}.png")
    assert begin(data, run, test_split="val").record.fingerprint.test.counts == (3, 3)
    assert resume(run).record.fingerprint.test.counts == (3, 3)
    measured, is_whole = load_measured(str(data), [read_config(run)])
    assert (len(measured.test), is_whole) == (8, False), "the images that are kept for the end"
    assert told_leak(read_config(run), str(data), measured, is_whole) is None


def test_a_run_of_an_earlier_version_goes_on_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, run = image_folder(tmp_path / "data"), tmp_path / "run"
    begin(data, run)
    config = json.loads((run / "config.json").read_text())
    del config["fingerprint"]
    (run / "config.json").write_text(json.dumps(config))
    with caplog.at_level(logging.WARNING, logger="cosify"):
        session = resume(run)
    assert "was started by an earlier version, which recorded nothing of its data" in caplog.text
    caplog.clear()
    session.write_config({})  # as the loop does
    with caplog.at_level(logging.WARNING, logger="cosify"):
        resume(run)
    assert caplog.text == ""


@pytest.mark.parametrize(("limit", "pipeline", "augment"), [(0, "workers", "timm"), (2**31, "device", "crop-flip")])
def test_the_pipeline_is_recorded_and_resumed(
    limit: int, pipeline: str, augment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = image_folder(tmp_path / "data"), tmp_path / "run"
    monkeypatch.setattr(opening, "RESIDENT_BYTES", limit)
    session = begin(data, run)
    assert (session.data.pipeline, session.data.augmentation) == (pipeline, augment)
    assert json.loads((run / "config.json").read_text())["pipeline"] == pipeline
    monkeypatch.setattr(opening, "RESIDENT_BYTES", 2**31 - limit)
    session = resume(run)
    assert (session.data.pipeline, session.data.augmentation) == (pipeline, augment)


def test_errors_of_the_main_process_are_raised_as_they_are(tmp_path: Path) -> None:
    accelerator = begin(image_folder(tmp_path / "data"), tmp_path / "run").accelerator
    assert from_main(accelerator, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        from_main(accelerator, lambda: 1 // 0)


def test_what_is_left_out_is_recorded_and_not_compared(tmp_path: Path) -> None:
    data, run = image_folder(tmp_path / "data"), tmp_path / "run"
    (data / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    (data / "test" / "notes.txt").write_text("x")
    assert begin(data, run).record.left_out == {"train": {"hidden": 1}, "test": {"no images by their extension": 1}}
    recorded = json.loads((run / "config.json").read_text())["left_out"]
    assert recorded == {"train": {"hidden": 1}, "test": {"no images by their extension": 1}}
    (data / "train" / "cat" / ".DS_Store").unlink()
    assert resume(run).record.left_out == {"test": {"no images by their extension": 1}}
