"""Resuming a run executes nothing that its folder holds."""

import json
import os
import pickle
import shutil
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorProperties, TensorStorageMetadata

from cosify.training import TrainArguments, read_metrics, train
from cosify.training.safe_pickle import tensors_only
from tests.training.resume_worker import ARGUMENTS


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run with averaged weights."""
    folder = tmp_path_factory.mktemp("averaged") / "run"
    train(replace(ARGUMENTS, epochs=1, ema_decay=0.9, output=str(folder)))
    return folder


@pytest.mark.parametrize("as_torch", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_no_file_of_a_checkpoint_is_executed(averaged: Path, as_torch: bool, tmp_path: Path) -> None:
    (newest,) = averaged.glob("checkpoints/step-*")
    names = [path.name for path in newest.iterdir() if path.suffix not in (".json", ".safetensors")]
    assert {"optimizer.bin", "custom_checkpoint_0.pkl", "random_states_0.pkl"} <= set(names)
    for name in names:
        honest = (newest / name).read_bytes()
        hostile = {"step": Hostile(tmp_path / name), "state": Hostile(tmp_path / name)}
        if as_torch:
            torch.save(hostile, newest / name)
        else:
            (newest / name).write_bytes(pickle.dumps(hostile, protocol=2))
        try:
            if name.startswith("random_states"):  # which no step depends on
                train(TrainArguments(resume=str(averaged)))
            else:
                with pytest.raises(ValueError, match=r"checkpoint .*step-000000010 cannot be loaded \(UnpicklingError"):
                    train(TrainArguments(resume=str(averaged)))
        finally:
            (newest / name).write_bytes(honest)
    assert not list(tmp_path.iterdir()), "code of the run folder ran"
    train(TrainArguments(resume=str(averaged)))
    assert len(read_metrics(averaged)) == 1


def test_a_hostile_config_executes_nothing(averaged: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(averaged, folder)
    torch.save({"state_dict": Hostile(tmp_path / "trace")}, folder / "weights.bin")
    config = json.loads((folder / "config.json").read_text())
    config["arguments"]["model_kwargs"] = [f"checkpoint_path={str(folder / 'weights.bin')!r}"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="cannot be built"):
        train(TrainArguments(resume=str(folder)))
    assert not (tmp_path / "trace").exists()


def test_the_index_of_a_sharded_checkpoint_holds_descriptions_alone(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    index = tmp_path / "model" / ".metadata"
    described = TensorStorageMetadata(TensorProperties(), torch.Size([2]), [])
    honest = Metadata(OrderedDict(weight=described), storage_data={"path": FileSystemWriter})
    for content, fine in ((Metadata({"weight": described}), True), (honest, True), (Hostile(tmp_path / "x"), False)):
        index.write_bytes(pickle.dumps(content))
        if fine:
            with tensors_only(tmp_path):
                pass
            continue
        with pytest.raises(ValueError, match=r"it names posix\.mkdir, expected torch's descriptions of tensors alone"):
            tensors_only(tmp_path).__enter__()
    assert not (tmp_path / "x").exists()


def test_what_the_user_has_set_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    torch.save(Hostile(tmp_path / "x"), tmp_path / "file")
    with tensors_only(tmp_path), pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "file", weights_only=False)
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    assert not (tmp_path / "x").exists()
