"""Which part of the data an evaluation measures, and what it says of images that a model was trained on."""

import json
from pathlib import Path
from typing import Any

import pytest

from cosify.data import Fingerprint, load_splits
from cosify.errors import InputError
from cosify.models.config import RUN_MARK
from cosify.training.data_record import as_trained
from cosify.training.seen_images import config_of, load_measured, told_leak, told_part
from tests.data.folders import image_folder, parquet_folder, picture


def run_on(folder: Path, data: str, **settings: Any) -> str:
    """Write the config.json of a run on DATA; return its folder."""
    columns = {name: settings.get(name) for name in ("image_column", "label_column")}
    fingerprint = Fingerprint.of_data(data, as_trained(load_splits(data, **columns), settings)).record()
    record = {
        RUN_MARK: 1,
        "script": "TrainArguments",
        "arguments": {"data": data, **settings},
        "fingerprint": fingerprint,
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(record), encoding="utf-8")
    return str(folder)


def told(spec: str, data: str) -> str | None:
    run = config_of(spec)
    return told_leak(run, data, *load_measured(data, [run]))


def numbers(data: str, *specs: str) -> tuple[int, int]:
    splits, _ = load_measured(data, [config_of(spec) for spec in specs])
    return len(splits.train), len(splits.test)


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(image_folder(tmp_path / "data", per_class=10))


def test_a_split_is_measured_whole_but_for_the_run_that_divided_it(data: str, tmp_path: Path) -> None:
    own = run_on(tmp_path / "own", f"{data}:test")
    whole = run_on(tmp_path / "whole", data)
    assert numbers(data, own) == numbers(data, "resnet18") == (20, 20)
    assert numbers(f"{data}:test", "resnet18", whole) == (1, 20)
    assert numbers(f"{data}:train", own) == (1, 20)
    assert numbers(f"{data}:test", own) == numbers(f"{data}:test", "resnet18", f"{own}/export") == (16, 4)
    (tmp_path / "data").rename(tmp_path / "moved")
    assert numbers(f"{tmp_path / 'moved'}:test", own) == (16, 4)
    assert told(own, f"{tmp_path / 'moved'}:test") is None
    (tmp_path / "alone" / "train").mkdir(parents=True)
    picture(0).save(tmp_path / "alone" / "train" / "0.png")
    with pytest.raises(InputError, match="lies in no folder of a class"):
        numbers(f"{tmp_path / 'alone'}:train", own)


def test_a_folder_of_classes_for_the_test_alone(tmp_path: Path) -> None:
    image_folder(tmp_path / "data")
    assert numbers(f"{tmp_path / 'data' / 'test'}:train", "resnet18") == (1, 8)


def test_what_is_measured_is_said() -> None:
    assert told_part("digits", False) is None
    assert told_part("digits:test", True) == (
        "All of digits:test is measured. Scores that are fitted on training images are left out."
    )
    assert told_part("d:train", False) == "A fifth of each class of d:train is measured, as training on it holds out."


def test_training_images_are_told(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = f"These are images that the model was trained on ({data}): expect it to do worse on new ones."
    run = run_on(tmp_path / "run", data)
    assert told(run, data) is None
    assert told(run, f"{data}:test") is None
    assert told(run, f"{data}:train") == seen
    few = run_on(tmp_path / "few", data, limit_train=5)
    assert told(few, f"{data}:train") == seen
    assert told("resnet18", f"{data}:train") is None
    monkeypatch.chdir(tmp_path)
    assert told(run, "data:train") == seen
    (tmp_path / "data").rename(tmp_path / "moved")
    assert told(run, "moved:train") == told(few, "moved:train") == seen
    assert told(run, "moved:test") is None
    image_folder(tmp_path / "data", per_class=11)
    said = told(run, f"{data}:train")
    assert said is not None
    assert said.startswith(f"{data}:train has changed since the model's training, or is other data of the same name")


def test_training_images_in_named_columns_are_told(tmp_path: Path) -> None:
    columns = {"image_column": "photo", "label_column": "species"}
    folder = parquet_folder(tmp_path / "data", [0, 1] * 5, [0, 1] * 5, columns=("photo", "species"))
    for data in (str(folder), f"{folder}:test"):
        run = config_of(run_on(tmp_path / f"run{':' in data}", data, **columns))
        measured = f"{folder}:train" if data == str(folder) else str(folder)
        said = told_leak(run, measured, *load_measured(measured, [run], **columns))
        assert said is not None
        assert said.startswith(("These are images that the model was", "The model was trained on four fifths"))


def test_a_test_split_that_a_run_divided_is_told(data: str, tmp_path: Path) -> None:
    run = run_on(tmp_path / "run", f"{data}:test")
    assert told(run, data) == (
        f"The model was trained on four fifths of these images ({data}:test): expect it to do worse on new ones."
    )
    assert told(run_on(tmp_path / "other", f"{data}:train"), data) is None
    (tmp_path / "data").rename(tmp_path / "moved")
    assert told(run, str(tmp_path / "moved")) is not None


@pytest.mark.parametrize("settings", [{}, {"limit_train": 16}, {"limit_train": 5}])
def test_another_fifth_than_the_one_held_out_is_told(settings: dict[str, Any], data: str, tmp_path: Path) -> None:
    run = run_on(tmp_path / "run", f"{data}:train", **settings)
    assert told(run, f"{data}:train") is None
    picture(500).save(Path(data) / "train" / "cat" / "new.png")
    said = told(run, f"{data}:train")
    assert said is not None
    assert said.startswith(f"{data}:train has changed since the model's training (")
    assert said.endswith("the model may have been trained on some of these images.")


def test_fewer_images_than_a_run_had_are_a_change(data: str, tmp_path: Path) -> None:
    run = run_on(tmp_path / "run", f"{data}:train", limit_train=16)
    for index in range(5):
        (Path(data) / "train" / "cat" / f"{index}.png").unlink()
    said = told(run, f"{data}:train")
    assert said is not None
    assert "(there are fewer training images than then)" in said


def test_a_run_of_an_earlier_version_is_not_judged(data: str, tmp_path: Path) -> None:
    run = run_on(tmp_path / "run", data)
    record = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    del record["fingerprint"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(record), encoding="utf-8")
    assert told(run, f"{data}:train") is None
