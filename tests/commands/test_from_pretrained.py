"""`cosify finetune`, `adapt` and `probe` from the export of a run."""

import json
import subprocess
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

import cosify
from cosify.console.training import export
from cosify.errors import AccuracyDroppedError
from cosify.evaluation import FeatureCache
from cosify.training import (
    CosifyArguments,
    FinetuneArguments,
    TrainArguments,
    cosify_pretrained,
    finetune,
    read_config,
    read_metrics,
    train,
)
from scripts import compare
from tests.processes import ROOT, environment, python, run_python


@pytest.fixture(scope="module")
def softmax_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a softmax run on synthetic images, with its export."""
    folder = tmp_path_factory.mktemp("runs") / "softmax"
    result = train(
        TrainArguments(data="synthetic", head="linear", epochs=10, batch_size=32, output=str(folder), tracker="none")
    )
    assert result.evaluation.accuracy > 0.9
    export(result)
    return folder


@pytest.mark.slow
def test_cosify_keeps_the_directions_and_reports_the_start(softmax_run: Path, tmp_path: Path) -> None:
    args = CosifyArguments(
        model=str(softmax_run), data="synthetic", epochs=1, batch_size=32, lr=1e-4, blocks="head", kappa="10",
        tracker="none", output=str(tmp_path / "run"),
    )  # fmt: skip
    result = cosify_pretrained(args)
    config = read_config(tmp_path / "run")
    base = config["base_accuracy"]
    assert result.evaluation.accuracy > base - 0.05, "the directions of the classes are lost"
    assert 1 < config["start_kappa"]["mean"] < 100
    assert sum(config["start_kappa"]["histogram"]) == 320
    assert config["num_trained"] == 10 * 128 < config["num_parameters"]
    stock = torch.nn.functional.normalize(result.model.fc.weight.detach())
    assert stock.shape == (10, 128)
    before = {k: v for k, v in _start_state(softmax_run).items() if not k.startswith("fc.")}
    for name, value in before.items():
        torch.testing.assert_close(result.model.state_dict()[name], value, rtol=0, atol=0, msg=f"{name} is not frozen")


def test_a_classifier_is_trained_anew_on_frozen_features(softmax_run: Path, tmp_path: Path) -> None:
    args = FinetuneArguments(
        model=str(softmax_run), data="synthetic", epochs=1, batch_size=32, lr=1e-9, blocks="head", balance="sampling",
        tracker="none", output=str(tmp_path / "run"),
    )  # fmt: skip
    state, before = finetune(args).model.state_dict(), _start_state(softmax_run)
    assert any("running_mean" in name for name in before)
    for name, value in before.items():
        if not name.startswith("fc."):
            torch.testing.assert_close(state[name], value, rtol=0, atol=0, msg=f"{name} is not frozen")
    cosine = torch.nn.functional.cosine_similarity(state["fc.weight"], before["fc.weight"])
    assert cosine.abs().max() < 0.5, "the old classifier goes on"


def _start_state(run: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run / "export" / "model.safetensors")


@pytest.mark.slow
def test_guard_rail_stops_with_a_message(softmax_run: Path, tmp_path: Path) -> None:
    args = CosifyArguments(
        model=str(softmax_run), data="synthetic", epochs=3, batch_size=32, lr=5.0, tracker="none",
        output=str(tmp_path / "run"),
    )  # fmt: skip
    with pytest.raises(
        AccuracyDroppedError, match=r"test accuracy is .* below the softmax model's .*, expected at most 5"
    ):
        cosify_pretrained(args)
    assert len(read_metrics(tmp_path / "run")) >= 1, "the evaluation that ended it is not on record"
    cosify_pretrained(replace(args, max_drop=1.0, overwrite=True))


@pytest.mark.parametrize(("run", "kind"), [(finetune, FinetuneArguments), (cosify_pretrained, CosifyArguments)])
def test_more_stages_than_there_are_leave_no_folder(run: Any, kind: Any, softmax_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="9 stages came"):
        run(kind(model=str(softmax_run), data="digits", blocks="9", tracker="none", output=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_cosify_other_classes_gets_a_new_classifier(softmax_run: Path, tmp_path: Path) -> None:
    args = CosifyArguments(
        model=str(softmax_run), data="two-digits", limit_train=256, epochs=1, batch_size=64, tracker="none",
        output=str(tmp_path / "run"),
    )  # fmt: skip
    result = cosify_pretrained(replace(args, lr=1e-9))
    assert result.model.fc.num_classes == 100
    assert read_config(tmp_path / "run")["base_accuracy"] is None
    before = _start_state(softmax_run)
    for name in (name for name in before if "running" in name):
        torch.testing.assert_close(result.model.state_dict()[name], before[name], rtol=0, atol=0, msg=name)
    again = cosify_pretrained(replace(args, lr=1e-9, resume=str(tmp_path / "run")))
    assert torch.equal(again.model.fc.weight, result.model.fc.weight)
    cold = replace(args, lr=1e-9, output=str(tmp_path / "cold"), head_start="none", freeze_norms=False)
    assert result.evaluation.loss < cosify_pretrained(cold).evaluation.loss - 0.3, "the classifier did not begin"


@pytest.mark.slow
def test_a_head_start_tells_classes_apart_from_the_first_step(softmax_run: Path, tmp_path: Path) -> None:
    shared = {"model": str(softmax_run), "data": "synthetic", "epochs": 1, "batch_size": 32, "lr": 1e-9, "kappa": "20"}
    weights = []
    for start in ("none", "means", "probe"):
        found = []
        for number, (run, args) in enumerate(
            ((finetune, FinetuneArguments(**shared, head="cos", tracker="none", head_start=start)),
             (cosify_pretrained, CosifyArguments(**shared, max_drop=1.0, tracker="none", head_start=start)))
        ):  # fmt: skip
            result = run(replace(args, output=str(tmp_path / f"{number}-{start}")))
            found.append(result.evaluation.accuracy)
        assert (found[0] > 0.9) == (start != "none"), "a new classifier"
        assert found[1] > 0.9, "that of softmax, class means, or a probe"
        weights.append(result.model.fc.weight.detach())
    assert not any(torch.allclose(one, other, atol=1e-3) for one, other in combinations(weights, 2)), (
        "one start for all"
    )


def test_a_table_of_heads_is_in_one_order() -> None:
    heads = {"60", "9.5", "2kappa", "rule", "100", "softmax", "adacos-dynamic", "ls"}
    assert compare.in_order(heads) == ["softmax", "rule", "ls", "2kappa", "adacos-dynamic", "9.5", "60", "100"]


def test_cosine_models_are_not_cosified_again(softmax_run: Path, tmp_path: Path) -> None:
    model = cosify.convert(cosify_start(softmax_run), kappa="ls")
    cosify.save(model, tmp_path / "cos")
    with pytest.raises(ValueError, match=r"has a cosine head already, expected a softmax one; use cosify finetune"):
        cosify_pretrained(CosifyArguments(model=str(tmp_path / "cos"), data="synthetic"))


def cosify_start(run: Path) -> torch.nn.Module:
    import timm

    model: torch.nn.Module = timm.create_model(f"local-dir:{run / 'export'}", pretrained=True)
    return model


@pytest.mark.parametrize("head", ["linear", "cos"])
def test_finetune_replaces_the_head_and_freezes(softmax_run: Path, tmp_path: Path, head: str) -> None:
    model = cosify.convert(cosify_start(softmax_run), kappa=20.0)
    cosify.save(model, tmp_path / "cos")
    args = FinetuneArguments(
        model=str(tmp_path / "cos"), data="digits", limit_train=256, epochs=2, batch_size=64, blocks="1", head=head,
        tracker="none", output=str(tmp_path / "run"),
    )  # fmt: skip
    result = finetune(args)
    assert bool(cosify.find_heads(result.model)) == (head == "cos")
    state, start = result.model.state_dict(), _start_state(softmax_run)
    assert torch.equal(state["layer1.0.bn1.running_mean"], start["layer1.0.bn1.running_mean"])
    assert torch.equal(state["layer3.0.conv1.weight"], start["layer3.0.conv1.weight"])
    assert not torch.equal(state["layer4.0.conv1.weight"], start["layer4.0.conv1.weight"])
    config = result.model.pretrained_cfg
    assert tuple(config["mean"]) == tuple(cosify_start(softmax_run).pretrained_cfg["mean"]), "not the backbone's own"
    export(result)
    written = json.loads((tmp_path / "run" / "export" / "config.json").read_text())
    assert "head" not in written["model_args"], "stock timm does not know this argument"
    opened = cosify_start(tmp_path / "run").eval()
    images = next(iter(result.data.test_batches(8)))[0]
    assert torch.equal(opened(images).argmax(1), result.model.eval()(images).argmax(1))


@pytest.mark.slow
def test_probe_of_an_export(softmax_run: Path, tmp_path: Path) -> None:
    printed = run_python("-m", "cosify", "probe", str(softmax_run), "synthetic", "--output", str(tmp_path / "probe"))
    assert "test accuracy" in printed
    (record,) = read_metrics(tmp_path / "probe", "probe")
    assert record["top1"] > 0.9
    assert (record["num_train"], record["num_validation"], record["num_test"]) == (256, 64, 100)
    assert read_config(tmp_path / "probe")["arguments"]["model"] == str(softmax_run)
    assert FeatureCache.open(tmp_path / "probe" / "features" / "test").info.num_samples == 100


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("adapt", "probe")]


@pytest.mark.parametrize("name", ["finetune", *OTHERS])
def test_a_missing_model_is_one_line(name: str, tmp_path: Path) -> None:
    for arguments, code, message in (
        ([], 2, "DATA is missing, expected MODEL DATA"),
        (["no_such"], 2, f"DATA is missing, expected MODEL DATA; write cosify {name} MODEL DATA"),
        (["--data", "digits"], 1, "model is missing, expected a folder"),
        (["no_such", "digits"], 1, "no_such is neither a folder here, nor a published backbone"),
    ):
        done = subprocess.run(
            [python(), "-m", "cosify", name, *arguments],
            env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code
        assert f"error: {message}" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_compare_resumes_and_tabulates(tmp_path: Path) -> None:
    script = str(ROOT / "scripts" / "compare.py")
    run_python(script, "--smoke", "--output", str(tmp_path))
    runs = (tmp_path / "runs.jsonl").read_text()
    by_head = {run["head"]: run for run in map(json.loads, runs.splitlines())}
    assert list(by_head) == ["softmax", "ls", "2kappa"]
    assert by_head["2kappa"]["kappa"] == pytest.approx(2 * by_head["ls"]["kappa"])
    run_python(script, "--smoke", "--output", str(tmp_path))
    assert (tmp_path / "runs.jsonl").read_text() == runs, "what was there was trained again"
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["head"] for row in rows] == ["softmax", "ls", "2kappa"]
    assert f"| ls | 1 | {100 * by_head['ls']['accuracy']:.2f} |" in (tmp_path / "table.md").read_text()
