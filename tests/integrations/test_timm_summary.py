"""Kappa in the summary of a program that is written as timm's train.py is."""

import csv
import json
import logging
from pathlib import Path

import pytest
import timm.utils
import torch

import cosify
from cosify.heads.kappa_watch import KappaWatch
from cosify.integrations.timm_summary import KEYS, told_of_kappa
from tests.processes import ROOT, run_python

TRAIN = ROOT / "tests/integrations/timm_train.py"
PROGRAM = """
import sys, types
sys.stderr = sys.stdout
import timm.utils.summary
timm.utils.summary.wandb = types.SimpleNamespace(log=lambda row: print("wandb", dict(row)))
from cosify.run import main
main({arguments!r})
"""


def train(folder: Path, *arguments: str) -> list[str]:
    """Run it under cosify.run, and return the lines that it prints."""
    folder.mkdir(exist_ok=True)
    return run_python("-c", PROGRAM.format(arguments=[str(TRAIN), "--output", str(folder), *arguments])).splitlines()


def summary(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as rows:
        return list(csv.DictReader(rows))


@pytest.mark.parametrize("way", ["eager", pytest.param("compiled", marks=pytest.mark.slow)])
def test_kappa_of_each_epoch_is_printed_and_written(way: str, tmp_path: Path) -> None:
    printed = train(tmp_path, "--model-kwargs", "head=cos", *(["--torchcompile", "aot_eager"] * (way == "compiled")))
    seen = [json.loads(line.removeprefix("seen ")) for line in printed if line.startswith("seen")]
    rows = summary(tmp_path)
    assert [row["epoch"] for row in rows] == ["0", "1"]
    lines = [line for line in printed if "kappa: mean" in line]
    for epoch, (row, kappas) in enumerate(zip(rows, seen, strict=True)):
        kappa = torch.tensor(kappas)
        assert len(kappa) == 3 * 8
        assert float(row["train_kappa_mean"]) == pytest.approx(kappa.mean().item(), rel=1e-6)
        assert float(row["train_kappa_median"]) == kappa.median().item()
        assert (row["train_kappa_low_edge"], row["train_kappa_high_edge"]) == ("0.0", "0.0")
        assert lines[epoch].startswith(f"Train: {epoch}  kappa: mean {kappa.mean().item():.4g}, median "), lines[epoch]
    assert list(rows[0])[:3] == ["epoch", "train_loss", "train_kappa_mean"]


def test_wandb_gets_what_the_file_gets(tmp_path: Path) -> None:
    printed = train(tmp_path, "--model-kwargs", "head=cos", "kappa=200", "--log-wandb", "--epochs", "1")
    (told,) = (line for line in printed if line.startswith("wandb"))
    (row,) = summary(tmp_path)
    assert f"'train_kappa_mean': {row['train_kappa_mean']}" in told
    assert row["train_kappa_mean"] == "200.0"
    assert "edge" not in "".join([*row, *printed])  # a fixed kappa has none


def test_a_stock_head_is_as_without_the_plugin(tmp_path: Path) -> None:
    printed = train(tmp_path)
    assert "kappa" not in "".join(printed)
    assert list(summary(tmp_path)[0]) == ["epoch", "train_loss", "eval_top1", "lr"]


@pytest.mark.slow
def test_columns_of_a_file_that_is_there_stay(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    train(old, "--epochs", "1")  # a stock head
    printed = train(old, "--model-kwargs", "head=cos", "--start-epoch", "1")
    assert any("Train: 1  kappa: mean" in line for line in printed)
    assert [list(row) for row in summary(old)] == [["epoch", "train_loss", "eval_top1", "lr"]] * 2
    train(new, "--model-kwargs", "head=cos", "--epochs", "1")
    train(new, "--model-kwargs", "head=cos", "--start-epoch", "1")
    assert all(float(row["train_kappa_mean"]) > 0 for row in summary(new))
    train(new, "--start-epoch", "2", "--epochs", "3")  # without a cosine head there is none to write
    assert [row["train_kappa_mean"] for row in summary(new)][2] == "nan"
    assert {len(line.split(",")) for line in (new / "summary.csv").read_text().splitlines()} == {8}


def epoch_of(model: torch.nn.Module) -> None:
    """Make one step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()(torch.randn(2, 3, 64, 64)).sum().backward()
    optimizer.step()


def test_a_policy_without_edges_keeps_the_columns_of_a_file_that_has_them(tmp_path: Path) -> None:
    for epoch, kappa in enumerate(("ls", 200.0)):
        model = timm.create_model("test_resnet", num_classes=3, head="cos", kappa=kappa)
        with told_of_kappa():
            epoch_of(model)
            timm.utils.update_summary(epoch, {"loss": 1.0}, None, tmp_path / "summary.csv", write_header=epoch == 0)
    first, second = summary(tmp_path)
    assert float(first["train_kappa_high_edge"]) >= 0
    assert [second[f"train_{key}"] for key in KEYS] == ["200.0", "200.0", "nan", "nan"]


def test_all_is_undone_afterwards(tmp_path: Path) -> None:
    from torch.optim import optimizer

    original, hooks = timm.utils.update_summary, len(optimizer._global_optimizer_post_hooks)
    with told_of_kappa():
        assert timm.utils.update_summary is not original
    assert timm.utils.update_summary is original
    assert len(optimizer._global_optimizer_post_hooks) == hooks


@pytest.mark.parametrize(("method", "broken_from"), [("look", 0), ("look", 1), ("read", 0), ("read", 1)])
def test_an_error_of_ours_is_one_warning(
    method: str, broken_from: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self: object) -> None:
        raise RuntimeError("no such number")

    model = timm.create_model("test_resnet", num_classes=3, head="cos")
    with told_of_kappa(), caplog.at_level(logging.WARNING, logger="cosify"):
        for epoch in range(3):
            if epoch == broken_from:
                monkeypatch.setattr(KappaWatch, method, fails)
            epoch_of(model)
            timm.utils.update_summary(epoch, {"loss": 1.0}, None, tmp_path / "summary.csv")
    columns = ["epoch", "train_loss", *(f"train_{key}" for key in KEYS)]
    assert [list(row) for row in summary(tmp_path)] == [columns if broken_from else columns[:2]] * 3
    if broken_from:
        assert [row["train_kappa_mean"] == "nan" for row in summary(tmp_path)] == [False, True, True]
    assert caplog.text.count("kappa is not in the summaries of this program (RuntimeError: no such number)") == 1


@pytest.mark.parametrize("there", [False, True])
def test_another_timm_is_one_warning(
    there: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(timm.utils, "update_summary")
    if there:  # with other arguments
        monkeypatch.setattr(timm.utils, "update_summary", lambda epoch, metrics: metrics, raising=False)
    with told_of_kappa(), caplog.at_level(logging.WARNING, logger="cosify"):
        epoch_of(timm.create_model("test_resnet", num_classes=3, head="cos"))
        assert not there or timm.utils.update_summary(0, "as it was") == "as it was"
    assert caplog.text.count("lacks timm.utils.update_summary(epoch, filename, train_metrics)") == 1


def test_models_that_do_not_train_are_not_counted(tmp_path: Path) -> None:
    student, teacher, other = (
        timm.create_model("test_resnet", num_classes=3, head="cos", kappa=kappa) for kappa in (7.0, 90.0, 50.0)
    )
    for model in (teacher, other):  # have seen a batch, and train no more
        model(torch.randn(2, 3, 64, 64))
    teacher.eval()
    with told_of_kappa():
        epoch_of(student)
        timm.utils.update_summary(0, {"loss": 1.0}, {"top1": 2.0}, tmp_path / "summary.csv")
    (row,) = summary(tmp_path)
    assert {key: value for key, value in row.items() if "kappa" in key} == {
        "train_kappa_mean": "7.0",
        "train_kappa_median": "7.0",
    }
    assert {head.training for model in (student, other) for head in cosify.find_heads(model).values()} == {True}
