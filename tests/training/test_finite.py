"""NaN ends a run with an error and its last finite checkpoint, on whatever way it comes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cosify.console import one_line_errors
from cosify.console.training import run_training
from cosify.functional import ls_kappa
from cosify.functional.checks import values_unseen
from cosify.training import read_metrics, train
from cosify.training.interrupt import Interrupts
from cosify.training.loop import Run
from tests.processes import run_distributed
from tests.training.resume_worker import ARGUMENTS

DIVERGES = replace(ARGUMENTS, mixup=0.0, lr=1e6, warmup_epochs=0, save_every_steps=None)


def poison_after(monkeypatch: pytest.MonkeyPatch, step: int, number: float = torch.nan) -> None:
    """Write NaN to a weight after that step, whose own loss is finite."""
    whole = Run.step

    def poisoned(self: Any, *args: Any) -> None:
        whole(self, *args)
        if self.progress.step == step:
            with torch.no_grad():
                next(self.model.parameters()).view(-1)[0] = number

    monkeypatch.setattr(Run, "step", poisoned)


def is_finite(file: Path) -> bool:
    return all(bool(value.isfinite().all()) for value in load_file(file).values() if value.is_floating_point())


@pytest.mark.parametrize("settings", [{"head": "linear"}, {}, {"cosine_margin": 0.2}], ids=["softmax", "ls", "margin"])
def test_a_run_that_diverges_ends_with_an_error_and_no_export(settings: dict[str, Any], tmp_path: Path) -> None:
    args = replace(DIVERGES, **settings, output=str(tmp_path / "run"))
    with pytest.raises(SystemExit) as ended, one_line_errors():
        run_training(train, args)
    message = str(ended.value.code)  # text, which the interpreter prints before it exits with 1
    assert " in epoch 1, at step " in message
    assert "expected a finite number: the training has diverged; there is no checkpoint before it" in message
    assert "Start a new run: lower --lr (it is 1000000.0)" in message
    assert not (tmp_path / "run" / "export").exists()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def by_signal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Interrupts, "agreed", lambda self, step: 15 if step == 12 else 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "interrupt", "number", "kept"),
    [
        ({"save_every_steps": 1}, None, torch.nan, 11),
        ({"save_every_steps": None}, by_signal, torch.nan, 10),
        ({"save_every_steps": None, "eval_every_steps": 12}, None, torch.inf, 10),
    ],
    ids=["save", "signal", "evaluation"],
)
def test_weights_that_are_not_finite_are_never_saved(
    settings: dict[str, Any],
    interrupt: Callable[[pytest.MonkeyPatch], None] | None,
    number: float,
    kept: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poison_after(monkeypatch, 12, number)
    if interrupt is not None:
        interrupt(monkeypatch)
    message = rf"weights are NaN or infinite in epoch 2, at step 12, .*; the checkpoint step-0000000{kept} is kept"
    with pytest.raises(ValueError, match=message):
        train(replace(ARGUMENTS, **settings, output=str(tmp_path)))
    (newest,) = tmp_path.glob("checkpoints/step-*")
    assert newest.name == f"step-0000000{kept}"
    assert is_finite(newest / "model.safetensors")
    assert is_finite(tmp_path / "checkpoints" / "best.safetensors")
    assert [record["step"] for record in read_metrics(tmp_path)] == [10]


def test_the_last_step_of_an_epoch_is_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison_after(monkeypatch, 20)
    args = replace(ARGUMENTS, save_every_steps=None, eval_every_epochs=3, export="last", output=str(tmp_path))
    with pytest.raises(ValueError, match="weights are NaN or infinite in epoch 2, at step 20"):
        train(args)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000010"]


@pytest.mark.parametrize("num_classes", [10, 1500])  # the whole grid, and the certified search
def test_the_search_ends_where_values_are_not_finite(num_classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    embedding, weight = (torch.randn(rows, 64, generator=generator) for rows in (64, num_classes))
    clean = ls_kappa(embedding[2:], weight)
    embedding[0], embedding[1, 3] = torch.nan, torch.inf
    with values_unseen():
        found = ls_kappa(embedding, weight)
    assert torch.equal(found[2:], clean)
    with pytest.raises(ValueError, match="embedding holds NaN or infinity in 2 of 64 rows"):
        ls_kappa(embedding, weight)


@pytest.mark.slow
def test_what_one_rank_alone_meets_ends_all_of_them(tmp_path: Path) -> None:
    run_distributed("tests.training.finite_worker", tmp_path, 2)
    first, second = ((tmp_path / f"rank{rank}.txt").read_text() for rank in range(2))
    assert first == second
    assert "the training loss is nan in epoch 1, at step 9" in first
    assert "the checkpoint step-000000006 is kept" in first
