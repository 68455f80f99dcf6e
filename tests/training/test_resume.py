"""A run that ends early, however it ends, goes on to what it would have been."""

import importlib.util
import json
import multiprocessing
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import cosify
from cosify.settings import resolved
from cosify.training import (
    CosifyArguments,
    FinetuneArguments,
    TrainArguments,
    cosify_pretrained,
    finetune,
    read_metrics,
    session,
    train,
)
from cosify.training.checkpoint import Progress, read_progress
from cosify.training.loop import Run
from cosify.training.resumed import as_begun
from cosify.training.run_folder import RunFolder, read_config
from cosify.training.session import _batch_size_of
from tests.processes import ROOT, environment, python, run_distributed, run_python
from tests.training import resume_worker
from tests.training.records import recorded
from tests.training.resume_worker import ARGUMENTS, TINY

RICH = {
    "ema_decay": 0.9,
    "random_erasing": 0.2,
    "label_smoothing": 0.1,
    "clip_grad_norm": 1.0,
    "accumulate": 2,
    "eval_every_steps": 2,
    "mix_off_epochs": 1,
    "save_every_steps": 3,
    "balance": "sampling",
    "schedule": "step",
    "decay_epochs": 2.0,
}


class _StopError(Exception):
    pass


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, run: Callable[[], Any]) -> None:
    """Call `run`, which dies without warning after `step` steps."""
    due = Run._due

    def dying(self: Any, every: int | None) -> bool:
        if self.progress.step == step:
            raise _StopError
        return due(self, every)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_due", dying)
        with pytest.raises(_StopError):
            run()


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, 7),
        pytest.param({"kappa": "trainable"} | RICH, 7, marks=pytest.mark.slow),
        pytest.param({"kappa": "adacos-dynamic"} | RICH, 7, marks=pytest.mark.slow),
        pytest.param(
            {"pipeline": "workers", "num_workers": 1, "transform": {"scale": [0.5, 1.0]}, "save_every_steps": 2},
            13,
            marks=pytest.mark.slow,
        ),
        pytest.param({"cosine_margin": 0.2, "mixup": 0.0, "mixed_precision": "no"}, 15, marks=pytest.mark.slow),
        pytest.param({"save_every_steps": None}, 7, marks=pytest.mark.slow),
        ({"save_every_steps": None}, 11),
        ({"model": "resnet18_cifar", "model_kwargs": ["width=0.125"]}, 7),
    ],
    ids=["ls", "trainable", "adacos-dynamic", "workers", "margin", "epochs-only", "between-epochs", "channels-last"],
)
def test_it_ends_bit_equal(
    settings: dict[str, Any], steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = replace(ARGUMENTS, **settings)
    whole = train(replace(args, output=str(tmp_path / "whole")))
    part = tmp_path / "part"
    stop_at(monkeypatch, steps, lambda: train(replace(args, output=str(part))))
    rest = train(TrainArguments(resume=str(part)))
    assert recorded(part) == recorded(tmp_path / "whole")
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(rest.model.state_dict()[name], value, rtol=0, atol=0, msg=name)
    assert rest.evaluation == whole.evaluation
    left = {path.name for path in (part / "checkpoints").iterdir()}
    assert left == {f"step-{whole.data.num_train // (32 * args.accumulate) * 3:09d}", "best.safetensors"}


@pytest.mark.slow
def test_tensorboard_forgets_what_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    args = replace(ARGUMENTS, tracker="tensorboard", eval_every_steps=2, output=str(tmp_path))
    stop_at(monkeypatch, 9, lambda: train(args))  # its checkpoint is of step 6, its last evaluation of step 8
    result = train(TrainArguments(resume=str(tmp_path)))
    found = events.EventAccumulator(str(result.folder.path / "trackers"))
    found.Reload()
    records = sorted(read_metrics(tmp_path) + read_metrics(tmp_path, "step"), key=lambda record: int(record["step"]))
    shown = [(each.step, pytest.approx(each.value)) for each in found.Scalars("test_accuracy")]
    assert [(record["step"], record["test_accuracy"]) for record in records] == shown


def test_a_finished_run_resumes_to_its_result(tmp_path: Path) -> None:
    whole = train(replace(ARGUMENTS, export="last", output=str(tmp_path)))
    again = train(TrainArguments(resume=str(tmp_path)))
    assert again.evaluation == whole.evaluation
    assert again.kappa == whole.kappa


def test_settings_of_a_run_stay(tmp_path: Path) -> None:
    args = TrainArguments(data="digits", epochs=3, lr=0.3, limit_train=64, kappa="20", output=str(tmp_path / "run"))
    config = {"script": "TrainArguments", "arguments": resolved(args)}
    run = str(RunFolder.create(tmp_path / "run", config).path)
    expected = replace(args, resume=run, output=None)
    assert as_begun(TrainArguments(resume=run)) == expected
    assert as_begun(replace(expected, data="elsewhere")) == replace(expected, data="elsewhere")
    assert as_begun(replace(expected, batch_size=7)) == expected, "it depends on the number of processes"
    assert as_begun(args) is args
    message = "epochs is 4, but run .* was started with 3, expected settings as .*; drop epochs, kappa, or start"
    with pytest.raises(ValueError, match=message):
        as_begun(TrainArguments(kappa="30", epochs=4, resume=run))
    with pytest.raises(ValueError, match="was written with TrainArguments, expected FinetuneArguments"):
        as_begun(FinetuneArguments(resume=run))


@pytest.mark.parametrize(
    "settings",
    [{"kappa": 20}, {"transform": {"scale": (0.5, 1.0)}}, {"schedule": "multistep", "decay_milestones": (1, 2)}],
    ids=["number", "dict", "tuple"],
)
def test_settings_that_json_spells_in_another_way_are_the_same(settings: dict[str, Any], tmp_path: Path) -> None:
    args = TrainArguments(data="digits", epochs=3, pipeline="workers", **settings)
    config = {"script": "TrainArguments", "arguments": json.loads(json.dumps(resolved(args)))}
    run = RunFolder.create(tmp_path / "run", config).path
    assert as_begun(replace(args, resume=str(run))) == as_begun(TrainArguments(resume=str(run)))


@pytest.mark.slow
def test_other_scripts_resume_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SMOKE_EPOCHS", 4)
    args = FinetuneArguments(smoke=True, batch_size=64, tracker="none", blocks="1", head="cos")
    whole = finetune(replace(args, output=str(tmp_path / "whole")))
    part = tmp_path / "part"
    stop_at(monkeypatch, 12, lambda: finetune(replace(args, output=str(part))))
    rest = finetune(FinetuneArguments(resume=str(part)))
    assert recorded(part) == recorded(tmp_path / "whole")
    assert rest.evaluation == whole.evaluation


@pytest.mark.slow
@pytest.mark.parametrize(("run", "kind"), [(finetune, FinetuneArguments), (cosify_pretrained, CosifyArguments)])
def test_a_start_that_has_changed_since_changes_nothing(
    run: Any, kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, more = tmp_path / "start", {"max_drop": 1.0} if kind is CosifyArguments else {"head": "cos"}
    _save_start(start, seed=0, mean=0.3)
    args = kind(data="synthetic", model=str(start), epochs=2, batch_size=64, save_every_steps=2, tracker="none", **more)
    whole = run(replace(args, output=str(tmp_path / "whole")))
    part = tmp_path / "part"
    stop_at(monkeypatch, 3, lambda: run(replace(args, output=str(part))))
    _save_start(start, seed=1, mean=0.9)
    rest = run(kind(resume=str(part)))
    assert rest.evaluation == whole.evaluation
    assert recorded(part) == recorded(tmp_path / "whole")
    one, other = (read_config(folder) for folder in (part, tmp_path / "whole"))
    assert one["normalization"]["mean"] == [0.3, 0.3, 0.3]
    assert {**one, "arguments": None} == {**other, "arguments": None}


def _save_start(folder: Path, seed: int, mean: float) -> None:
    torch.manual_seed(seed)
    model = timm.create_model("test_resnet", num_classes=10)
    model.pretrained_cfg.update(mean=(mean,) * 3, std=(0.2,) * 3, input_size=(3, 32, 32))
    cosify.save(model, folder, label_names=[str((index + seed) % 10) for index in range(10)])


@pytest.mark.slow
def test_an_early_stop_within_an_epoch_still_ends_the_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    often = {"eval_every_steps": 2, "eval_every_epochs": 2, "save_every_steps": 2}
    args = replace(ARGUMENTS, lr=1e-6, early_stop_evaluations=1, **often)
    whole = train(replace(args, output=str(tmp_path / "whole")))
    part = tmp_path / "part"
    stop_at(monkeypatch, 7, lambda: train(replace(args, output=str(part))))
    assert read_progress(part / "checkpoints" / "step-000000006" / "progress.json").done
    rest = train(TrainArguments(resume=str(part)))
    assert recorded(part) == recorded(tmp_path / "whole")
    (last,) = read_metrics(part)
    assert last["epoch"] == 1
    assert "test_accuracy" in last, "the last epoch always has an evaluation"
    assert rest.evaluation == whole.evaluation


def test_early_stop_ends_a_run_for_good(tmp_path: Path) -> None:
    args = replace(ARGUMENTS, epochs=8, lr=1e-6, early_stop_evaluations=2, output=str(tmp_path), save_every_steps=None)
    result = train(args)
    stopped_after = len(read_metrics(tmp_path))
    assert stopped_after < 8
    assert train(TrainArguments(resume=str(tmp_path))).evaluation == result.evaluation
    assert len(read_metrics(tmp_path)) == stopped_after


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_signals_save_and_say_how_to_go_on(number: signal.Signals, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [python(), str(ROOT / "scripts" / "train.py"), "--data", "synthetic", "--epochs", "3000"]
    command += ["--model-kwargs", *TINY, "--batch-size", "32", "--tracker", "none", "--output", str(run)]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 100
        while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        _, printed = process.communicate(timeout=60)
    assert process.returncode == 128 + number, printed
    assert f"stopped by signal {int(number)} at step " in printed
    assert f"go on with --resume {run}" in printed
    assert "Traceback" not in printed
    (newest,) = (path for path in (run / "checkpoints").iterdir() if path.is_dir())
    step = json.loads((newest / "progress.json").read_text())["step"]
    assert f"at step {step} of 30000" in printed
    assert int(newest.name.removeprefix("step-")) == step


def newest(folder: Path) -> str | None:
    """Return the name of the newest whole checkpoint."""
    return max((path.name for path in (folder / "checkpoints").glob("step-*")), default=None)


@pytest.mark.slow
def test_random_kills_lose_nothing(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("forkserver")  # not tests.warm: a kill has to reach the program itself
    processes.set_forkserver_preload(["tests.training.resume_worker"])
    train(replace(ARGUMENTS, epochs=15, output=str(tmp_path / "whole")))
    folder, chance = tmp_path / "killed", random.Random(0)
    for kill in range(10):
        process = processes.Process(target=resume_worker.start_or_resume, args=(str(folder), 15))
        before = newest(folder)
        process.start()
        deadline = time.monotonic() + 60
        while kill % 2 and newest(folder) == before and time.monotonic() < deadline:
            time.sleep(0.02)  # every other kill comes while steps are made and saved, the rest also while it starts
        process.join(chance.uniform(0, 0.1 if kill % 2 else 0.5))
        assert process.is_alive(), f"the run ended by itself before kill {kill}"
        process.kill()
        process.join()
    assert newest(folder) is not None
    process = processes.Process(target=resume_worker.start_or_resume, args=(str(folder), 15))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert recorded(folder) == recorded(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("step", "kept"), [(3, "there is none before it"), (12, "step-000000010 before it is kept")])
def test_a_full_disk_is_one_clear_error_and_keeps_the_last(step: int, kept: str, tmp_path: Path) -> None:
    run_python("-m", "tests.training.resume_worker", str(tmp_path / "run"), str(step))
    message = (tmp_path / "error.txt").read_text()
    assert f"the checkpoint of step {step} cannot be written to" in message
    assert kept in message
    assert "resume with --resume" in message
    assert not list((tmp_path / "run" / "checkpoints").glob(".*")), "something half-written is left"
    train(TrainArguments(resume=str(tmp_path / "run")))
    assert len(read_metrics(tmp_path / "run")) == 3


def test_a_damaged_checkpoint_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(monkeypatch, 7, lambda: train(replace(ARGUMENTS, output=str(tmp_path))))
    (newest,) = (path for path in (tmp_path / "checkpoints").iterdir() if path.is_dir())
    (newest / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(
        ValueError, match=r"checkpoint .*step-000000006 cannot be loaded .*, expected a whole one of the"
    ):
        train(TrainArguments(resume=str(tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_processes_goes_on(before: int, after: int, tmp_path: Path) -> None:
    for name, worlds in (("whole", (before,)), ("part", (before, after))):
        for part, world_size in enumerate(worlds):
            until = "10" if len(worlds) == 2 and part == 0 else "0"
            arguments = (str(64 // before), until)
            (tmp_path / name).mkdir(exist_ok=True)
            run_distributed("tests.training.ddp_worker", tmp_path / name, world_size, *arguments)
    whole, part = (read_metrics(tmp_path / name / "run") for name in ("whole", "part"))
    assert [record["step"] for record in part] == [record["step"] for record in whole] == [5, 10, 15, 20]
    for one, other in zip(whole, part, strict=True):
        for name in ("train_loss", "kappa_mean", "test_loss"):
            assert other[name] == pytest.approx(one[name], rel=1e-5), name
        assert sum(other["kappa_histogram"]) == sum(one["kappa_histogram"]) == 320


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = replace(ARGUMENTS, output=str(tmp_path))
    stop_at(monkeypatch, 4, lambda: train(args))
    with pytest.raises(
        ValueError, match=r"the run has 32 images in a batch of all processes, which 3 cannot share, exp"
    ):
        _batch_size_of(replace(args, resume=str(tmp_path)), 3)


@pytest.mark.slow
def test_an_earlier_run_stays_until_the_new_one_has_its_first_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    args = replace(ARGUMENTS, epochs=1, output=str(run))
    train(args)
    before = recorded(run)
    args = replace(args, overwrite=True, seed=1, tracker="auto", save_every_steps=None)
    with pytest.raises(ValueError, match="cannot be built"):
        train(replace(args, model_kwargs=["widht=2"]))
    assert recorded(run) == before
    result = train(args)
    assert (recorded(run) == before, result.folder.path) == (False, run)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step-000000010", "best.safetensors"}
    if importlib.util.find_spec("tensorboard") is not None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(run / "trackers"))
        events.Reload()
        (loss,) = events.Scalars("train_loss")
        assert (loss.step, loss.value) == (10, pytest.approx(read_metrics(run)[0]["train_loss"], rel=1e-6))


@pytest.mark.parametrize("damage", ["{", "[]", '{"step": "7"}', '{"step": 7, "sums": [1]}', '{"step": 7, "more": 1}'])
def test_a_damaged_progress_is_named(damage: str, tmp_path: Path) -> None:
    file = tmp_path / "step-000000007" / "progress.json"
    file.parent.mkdir()
    file.write_text(json.dumps(asdict(Progress(7))))
    assert read_progress(file) == Progress(7)
    file.write_text(damage)
    with pytest.raises((ValueError, TypeError)):
        read_progress(file)


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True])
def test_ctrl_c_ends_before_the_first_step_and_at_once_the_second_time(again: bool, tmp_path: Path) -> None:
    code = "import os, signal, sys; from cosify.training.loop import Run; from cosify.__main__ import main;"
    # A shell that starts the tests in the background has SIGINT ignored in all of them.
    code += "signal.signal(signal.SIGINT, signal.default_int_handler);"
    code += "stop = lambda *_: os.kill(os.getpid(), signal.SIGINT);"
    code += "stop = (lambda first: lambda *_: (first(), first()))(stop);" if again else ""
    code += f"Run.{'step' if again else '__init__'} = stop;"
    code += f"main(['train', 'synthetic', '--tracker', 'none', '--output', {str(tmp_path / 'run')!r}])"
    if again:
        code = code.replace("Run.step = stop", "step = Run.step; Run.step = lambda *a: (step(*a), stop())")
    done = subprocess.run(
        [python(), "-c", code], env=environment(), capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
