"""The run folder: what it holds, and what it will not touch."""

import json
import os
from pathlib import Path

import pytest

from cosify.training import RunFolder, read_config, read_metrics

CONFIG = {"script": "TrainArguments", "arguments": {"lr": 0.1}}


def test_files(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a" / "run", CONFIG)
    folder.write_environment({"device": "cpu"})
    folder.append_metrics({"epoch": 1, "loss": 0.1 + 0.2})
    folder.append_metrics({"epoch": 2, "loss": 0.0})
    assert json.loads((folder.path / "config.json").read_text()) == {"cosify_run": 1, **CONFIG}
    assert read_config(folder.path)["arguments"] == {"lr": 0.1}
    assert json.loads((folder.path / "environment.json").read_text()) == {"device": "cpu"}
    assert read_metrics(folder.path) == [{"epoch": 1, "loss": 0.1 + 0.2}, {"epoch": 2, "loss": 0.0}]
    names = {path.name for path in folder.path.iterdir()}
    assert names == {"config.json", "environment.json", "metrics.jsonl", "checkpoints"}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    folder.append_metrics({"epoch": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        folder.append_metrics({"epoch": object()})
    assert read_metrics(folder.path) == [{"epoch": 1}]


def test_foreign_folder_is_refused_whatever_the_flags(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    (tmp_path / "config.json").write_text('{"model": 1}')
    message = r"holds \['config.json', 'thesis.tex'\], which no run has written, expected a new or empty folder; choose"
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=message):
            RunFolder.create(tmp_path, CONFIG, overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "x"


def test_earlier_run_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", CONFIG).append_metrics({"epoch": 1})
    with pytest.raises(
        FileExistsError, match=r"holds an earlier run, .*; choose another --output, or pass --overwrite to"
    ):
        RunFolder.create(tmp_path / "run", CONFIG)
    assert read_metrics(tmp_path / "run") == [{"epoch": 1}]
    RunFolder.create(tmp_path / "run", CONFIG, overwrite=True)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_run_that_failed_before_its_first_epoch_is_in_nobodys_way(tmp_path: Path) -> None:
    for _ in range(2):
        RunFolder.create(tmp_path / "run", CONFIG)


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        OSError, match=r"run folder .*/file/run cannot be written to \(Not a directory\), expected a folder"
    ):
        RunFolder.create(tmp_path / "file" / "run", CONFIG)
    with pytest.raises(OSError, match=r"run folder .*/file cannot be written to \(Not a directory\)"):
        RunFolder.create(tmp_path / "file", CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "something is left behind"
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(OSError, match=r"cannot be written to \(Permission denied\)"):
            RunFolder.create(tmp_path / "closed" / "run", CONFIG)


def test_it_appears_with_its_config(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()  # an empty folder is taken over
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    assert read_config(folder.path)["script"] == "TrainArguments"
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"other is no run folder: .*config.json cannot be read .*; check --resume"):
        read_config(tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text('{"model": 1}')
    with pytest.raises(ValueError, match=r"config.json has the keys \['model'\]"):
        read_config(tmp_path / "other")


def test_metrics_after_a_step_are_forgotten(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    for step in (3, 6, 9):
        folder.append_metrics({"kind": "step" if step == 6 else "epoch", "step": step})
    folder.drop_metrics_after(6)
    assert [record["step"] for record in read_metrics(folder.path)] == [3]
    assert [record["step"] for record in read_metrics(folder.path, "step")] == [6]
