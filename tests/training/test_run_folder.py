"""The run folder: what it holds, and what it will not touch."""

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock, Timeout
from safetensors.torch import save_file
from torch import nn

from cosify.errors import InputError
from cosify.files import written_aside
from cosify.folders import LOCK
from cosify.training import RunFolder, read_config, read_metrics
from cosify.training.checkpoint import Checkpoints
from tests.killing import killed

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
    assert names == {"config.json", "environment.json", "metrics.jsonl", "checkpoints", ".lock"}


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
    new = RunFolder.create(tmp_path / "run", CONFIG, overwrite=True)
    new.append_metrics({"epoch": 2})
    (new.checkpoints / "step-000000001").mkdir()
    assert read_metrics(tmp_path / "run") == [{"epoch": 1}], "the old run is gone before the new one is safe"
    new.put_in_place()
    assert read_metrics(tmp_path / "run") == read_metrics(new.path) == [{"epoch": 2}]
    assert new.path == tmp_path / "run"
    assert (new.checkpoints / "step-000000001").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "something is left beside it"


def test_a_new_run_that_fails_before_its_first_checkpoint_leaves_the_old_one(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", CONFIG).append_metrics({"epoch": 1})
    new = RunFolder.create(tmp_path / "run", CONFIG, overwrite=True)
    assert len(list(tmp_path.iterdir())) == 2
    del new
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "the failed one is left"
    assert read_metrics(tmp_path / "run") == [{"epoch": 1}]


def test_a_run_that_was_killed_beside_an_old_one_is_cleared_away(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", CONFIG).append_metrics({"epoch": 1})
    process = os.fork()
    if process == 0:
        _new = RunFolder.create(tmp_path / "run", CONFIG, overwrite=True)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / ".run.new").mkdir()  # the user's
    RunFolder.create(tmp_path / "run", CONFIG, overwrite=True).put_in_place()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".run.new", "run"]


def write_tensors(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(file) as aside:
        save_file(nn.Linear(9, 9).state_dict(), aside)


@pytest.mark.parametrize("rename", [None, 0])
@pytest.mark.parametrize(
    "file",
    [
        *("config.json", "checkpoints/best.safetensors", "export/model.safetensors", "export/rejector-0.safetensors"),
        *("features/train/classifier.safetensors", "features/.train.new/bank.json"),
    ],
)
def test_what_a_kill_leaves_in_a_run_goes_with_it(file: str, rename: int | None, tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", CONFIG).append_metrics({"epoch": 1})
    killed(lambda: write_tensors(tmp_path / "run" / file), rename=rename)
    assert list((tmp_path / "run" / file).parent.glob(".*.new/*")), "nothing is left"
    RunFolder.create(tmp_path / "run", CONFIG, overwrite=True).put_in_place()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_a_kill_leaves_of_the_best_weights_goes_with_the_next(tmp_path: Path) -> None:
    checkpoints: Any = SimpleNamespace(folder=tmp_path)
    for rename in (None, 0):
        killed(lambda: Checkpoints.save_best(checkpoints, nn.Linear(9, 9)), rename=rename)
        assert len(list(tmp_path.iterdir())) == 1
    Checkpoints.save_best(checkpoints, nn.Linear(9, 9))
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]


@pytest.mark.parametrize("where", ["notes.txt", "export/README.md", "checkpoints/best/mine.txt", "export/link"])
def test_files_beside_a_run_are_not_replaced_with_it(where: str, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    folder.append_metrics({"epoch": 1})
    (folder.path / where).parent.mkdir(exist_ok=True)
    (folder.path / where).write_text("mine") if "link" not in where else (folder.path / where).symlink_to("/")
    with pytest.raises(FileExistsError, match=rf"holds \['{where}'\] beside an earlier run, .* move them away, or ch"):
        RunFolder.create(tmp_path / "run", CONFIG, overwrite=True)
    assert read_metrics(tmp_path / "run") == [{"epoch": 1}]


def test_one_process_writes_to_a_run(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)  # in its first epoch: without results
    RunFolder.open(tmp_path / "run")
    with pytest.raises(Timeout):
        FileLock(tmp_path / "run" / LOCK).acquire(timeout=0)
    del folder
    with FileLock(tmp_path / "run" / LOCK):  # of another process
        for call in (lambda: RunFolder.open(tmp_path / "run"), lambda: RunFolder.create(tmp_path / "run", {})):
            with pytest.raises(InputError, match=r"run is in use by another process, expected one at a time; wait for"):
                call()
    assert read_config(tmp_path / "run")["arguments"] == {"lr": 0.1}
    assert RunFolder.open(tmp_path / "run").path == tmp_path / "run"


def test_a_link_out_of_a_run_is_refused(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", CONFIG)
    (tmp_path / "run" / ".metrics.jsonl.new").symlink_to(tmp_path / "precious")
    with pytest.raises(ValueError, match=r"metrics.jsonl.new is a symbolic link to .*precious, out of the folder"):
        RunFolder.open(tmp_path / "run")


@pytest.mark.parametrize(
    "config", ['["cosify_run"]', '["cosify_run", "script", "arguments"]', '"cosify_run"', "[" * 10_000]
)
def test_a_config_that_only_names_a_run_is_none(config: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(FileExistsError, match="which no run has written"):
        RunFolder.create(tmp_path, CONFIG, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    with pytest.raises(ValueError, match="is no run folder"):
        read_config(tmp_path)


@pytest.mark.parametrize("damage", [b'{"step": 1', b"[1]", b"\xff\xfe", b"{} {}"])
def test_damaged_metrics_are_named(damage: bytes, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    folder.append_metrics({"step": 1})
    with (folder.path / "metrics.jsonl").open("ab") as file:
        file.write(damage)
    for read in (lambda: folder.drop_metrics_after(1), lambda: read_metrics(folder.path)):
        with pytest.raises(InputError, match=r"line 2 of .*metrics.jsonl is damaged \(.*\), expected what a run wrote"):
            read()


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
