"""`cosify evaluate`, `cosify scan` and scripts/reproduce.py."""

import base64
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import cosify
from cosify.commands import evaluate, scan
from cosify.data import load_splits, long_tailed
from cosify.evaluation import FeatureCache, assess, scan_features, verdict
from cosify.folders import model_name
from cosify.models.config import RUN_MARK
from cosify.plots.examples import data_uri
from cosify.training import TrainArguments, train
from scripts import our_results, reproduce


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of a small network on 400 digits, with an export."""
    folder = tmp_path_factory.mktemp("run")
    result = train(TrainArguments(epochs=8, limit_train=400, batch_size=64, output=str(folder), overwrite=True))
    cosify.save(result.model, result.folder.export, label_names=result.label_names)
    return folder


@pytest.fixture(autouse=True)
def command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["program", "--as", "typed"])


def test_training_images_are_counted_in_the_run_and_else_in_the_data(tmp_path: Path) -> None:
    digits = load_splits("digits")
    own = np.bincount(digits.train["label"][:]).tolist()
    assert evaluate.trained_on("resnet18", digits)[1].tolist() == own
    assert evaluate.trained_on(str(tmp_path), digits)[1].tolist() == own  # an export
    (tmp_path / "metrics.jsonl").touch()
    config = {RUN_MARK: 1, "script": "TrainArguments", "arguments": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert evaluate.trained_on(str(tmp_path), digits)[1].tolist() == own  # a run of before
    counts = [100, 50, 20, 10, 9, 8, 7, 6, 5, 4]
    (tmp_path / "config.json").write_text(json.dumps({**config, "fingerprint": {"train": {"counts": counts}}}))
    assert evaluate.trained_on(str(tmp_path), digits)[1].tolist() == counts


@pytest.mark.slow
def test_a_report_of_two_models(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = evaluate.EvaluateArguments(
        models=[f"LS={run}", f"again={run / 'export'}"],
        data="digits",
        ood=["two-digits:test"],
        transfer=["digits:train"],
        limit=300,
        limit_train=400,
        num_lambdas=2,
        resamples=100,
        rejector="norm_mahalanobis",
        classes=[7, 1, 3],
        output=str(tmp_path),
    )
    evaluate.main(arguments)
    record = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    first, second = record["models"]
    assert {**first, "model": ""} == {**second, "model": ""}  # the run and its export are one model
    cache = FeatureCache.open(tmp_path / "features" / "LS" / "test")
    assert first["accuracy"] == cache.correct.mean() > 0.5
    assert first["scan"]["kappa"]["mean"] == scan_features(cache).kappa.mean
    assert first["ood"]["two-digits-test"]["z_max"]["num_negative"] == 300
    assert first["transfer"]["digits-train"]["probe"]["num_test"] == 60
    text = (tmp_path / "evaluation.md").read_text(encoding="utf-8")
    assert f"{first['miss']['z_max']['ap']:.3f} [" in text
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "http" not in re.sub(r"data:image/(png|jpeg);base64,[\w+/=]+", "", page)  # nothing beside it is needed
    in_figures = "".join(re.findall(r"<figure>.*?</figure>", page, flags=re.DOTALL))
    pictures = [base64.b64decode(found) for found in re.findall(r"base64,([\w+/=]+)", in_figures)]
    files = sorted((tmp_path / "figures").iterdir())
    assert sorted(pictures) == sorted(file.read_bytes() for file in files)
    assert {"angles.png", "kappa_trace_0.png", "detection_miss.png", "reliability.png", "tsne.png"} <= {
        f.name for f in files
    }

    lines = verdict(assess("LS", cache, resamples=100), "z_max")
    assert lines[0].replace(" %", "\N{NO-BREAK SPACE}%") in page
    assert "again: turned away from the unseen set two-digits-test" in page
    surest = int(np.argmax(np.where(cache.correct, cosify.Rejector.load(run).detector(cache), -np.inf)))
    assert f'alt="Image in row {surest}: the answer is {cache.predictions[surest]}, the score' in page
    test_images = load_splits("digits").only("test", 300).test
    assert data_uri(test_images[surest]["image"]) in page

    image = test_images[5]["image"]
    decision = cosify.Rejector.load(run)(image)
    assert decision.label == cache.predictions[5]
    rejector = cosify.Rejector.load(run / "export")
    in_batch = rejector(torch.from_numpy(cache.embedding[5].copy())).score
    assert decision.score == pytest.approx(float(in_batch), rel=1e-5)  # float32, of one image and of many

    made = (tmp_path / "features" / "LS" / "test" / "bank.json").stat().st_mtime_ns
    monkeypatch.setattr("cosify.plots.draw_figures", lambda *_: [])  # which takes seconds
    evaluate.main(replace(arguments, overwrite=True))
    assert not (tmp_path / "figures").exists(), "figures of the result before are left"
    assert (tmp_path / "features" / "LS" / "test" / "bank.json").stat().st_mtime_ns == made
    assert json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8")) == record


@pytest.mark.slow
def test_a_split_is_measured_whole_and_training_images_are_told(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = evaluate.EvaluateArguments([f"LS={run}"], "digits:train", limit=60, resamples=100, output=str(tmp_path))
    with caplog.at_level("INFO", logger="cosify"):
        evaluate.main(few)
    part = "All of digits:train is measured. Scores that are fitted on training images are left out."
    leak = "These are images that the model was trained on (digits): expect it to do worse on new ones."
    assert {part, f"LS: {leak}"} <= set(caplog.messages)
    record = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert record["notes"] == {"LS": [leak, part]}
    assert record["models"][0]["num_train"] == 0
    assert "norm_mahalanobis" not in record["models"][0]["miss"]
    assert record["fingerprint"]["test"]["num"] == len(load_splits("digits").train)
    assert f"**LS**\n\n- {leak}\n- {part}\n- Right on " in (tmp_path / "evaluation.md").read_text(encoding="utf-8")
    assert leak in (tmp_path / "report.html").read_text(encoding="utf-8")
    for option in ({"rejector": "norm_mahalanobis"}, {"limit_train": 50}):
        with pytest.raises(ValueError, match="needs training images, and 'digits:train' is one split, to measure on"):
            evaluate.main(replace(few, overwrite=True, **option))


@pytest.mark.slow
def test_the_kappa_that_makes_probabilities_right_is_written_into_the_export(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = Path(shutil.copytree(run / "export", tmp_path / "export"))
    arguments = evaluate.EvaluateArguments(
        models=[f"LS={home}"], data="digits", calibrate=True, resamples=100, rejector="max_logit", output=str(tmp_path)
    )
    with caplog.at_level("INFO", logger="cosify"):
        evaluate.main(arguments)
    assert "is of another model" not in caplog.text  # the program itself has just calibrated
    config = json.loads((home / "config.json").read_text(encoding="utf-8"))["cosify"]
    (found,) = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))["models"]
    assert found["scan"]["eval_kappa"] == found["scan"]["head_kappa"] == config["eval_kappa"]
    assert set(found["calibration"]) == {"calibrated", "sample", "fitted"}
    assert found["calibration"]["calibrated"]["kappa"] == pytest.approx(config["eval_kappa"])
    before = cosify.load(run).fc.running_kappa()
    assert next(iter(config["heads"].values()))["kappa"] == pytest.approx(before)
    assert config["eval_kappa"] != pytest.approx(before)
    image = load_splits("digits").test[0]["image"]
    assert isinstance(cosify.Rejector.load(home)(image).accept, bool)  # it was fitted after kappa
    said = (tmp_path / "evaluation.md").read_text(encoding="utf-8")
    assert "Accepts at least 95 % of its right answers" in said  # though the largest logit itself is not measured


@pytest.mark.slow
def test_models_without_a_kappa_are_told_before_any_pass(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    softmax = cosify.save(cosify.load(run, head="linear"), tmp_path / "softmax")
    with pytest.raises(
        ValueError, match=r"the kappa of a cosine head, and softmax has a softmax head, .* drop --calib"
    ):
        evaluate.main(evaluate.EvaluateArguments([str(softmax)], calibrate=True, output=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()
    home = cosify.save(cosify.load(run), tmp_path / "LS")
    (home / "rejector.json").write_text("{}")  # of the kappa before
    models = [str(home), str(softmax)]
    evaluate.main(
        evaluate.EvaluateArguments(
            models, "digits", calibrate=True, limit=100, limit_train=100, resamples=100, output=str(tmp_path / "out")
        )
    )
    assert "softmax has a softmax head, without a kappa to fit" in caplog.text
    assert "LS: its rejector was fitted with another kappa and is refused now; fit it anew" in caplog.text
    assert len(json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))["models"]) == 2


@pytest.mark.slow
def test_the_numbers_of_before_are_gone_when_a_pass_is_cut_short(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are of other features than those that the pass has left."""

    def cut_short(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "passes", cut_short)
    (tmp_path / "evaluation.json").write_text('{"command": "cosify evaluate", "environment": {}}')
    for name in ("evaluation.md", "report.html", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(FileExistsError, match="holds an earlier result"):
        evaluate.main(evaluate.EvaluateArguments([str(run)], output=str(tmp_path)))
    assert len(list(tmp_path.iterdir())) == 4
    with pytest.raises(KeyboardInterrupt):
        evaluate.main(evaluate.EvaluateArguments([str(run)], output=str(tmp_path), overwrite=True))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_replaced_result_leaves_nothing_of_models_that_are_gone(tmp_path: Path) -> None:
    kept = ["features/LS/test/bank.json", "features/gone/mine.txt", "figures/mine.png", "features/train/labels.npy"]
    ours = ["figures/kappa_trace_1.png", "figures/detection_ood_0.png", "figures/tsne.png", "report.html"]
    ours += ["features/gone/test/bank.json", "features/gone/train/labels.npy", "features/gone/.test.lock"]
    ours += ["features/other/test/classifier.safetensors", "features/other/.train.new/labels.npy"]
    for name in (*kept, *ours):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    evaluate.clear(tmp_path, {"LS"})
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(kept)
    assert not (tmp_path / "features" / "other").exists()
    evaluate.clear(tmp_path / "new", {"LS"})  # where there is nothing yet


PUBLISHED = "resnet18_cifar.cos_ls_cifar100"
REFUSED: dict[str, dict[str, Any]] = {
    "expected different words; write TITLE=MODEL": {"models": ["same=a", "same=b"]},
    r"titles are \['a b', 'a-b'\]": {"models": ["a b=a", "a-b=b"]},
    r"titles are \['..'\]": {"models": ["..=a"]},
    "have one name, expected different ones": {"ood": ["a/set"], "transfer": ["b/set"]},
    r"classes \[11\] came, expected indices 0 to 9": {"classes": [11]},
    r"classes \[10\] came": {"exclude_classes": [10]},
    "expected at most 10 different ones": {"classes": [3, 3]},
    "rejector is 'knn', expected one of z_max": {"rejector": "knn"},
    f"model '{PUBLISHED}' is no folder to save a rejector in": {"models": [PUBLISHED], "rejector": "z_max"},
    f"model '{PUBLISHED}' is no folder to save kappa in": {"models": [PUBLISHED], "calibrate": True},
    "m is neither a folder here, nor a published backbone": {"rejector": "z_max", "calibrate": True},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_is_refused_before_any_pass(message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate.main(evaluate.EvaluateArguments(**{"models": ["m"], "output": str(tmp_path), **REFUSED[message]}))


def test_a_later_model_that_is_not_there_costs_no_pass(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nope is neither a folder here"):
        evaluate.main(evaluate.EvaluateArguments([str(run), "nope"], output=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": "two-digits"}, "the data have 100 classes and the model 10, expected as many"),
        ({"ood": ["/no/such/folder"]}, "/no/such/folder"),
        ({"transfer": ["digits"], "limit": 10}, "the task has 10 images of 7 classes, expected at least 20 of two"),
    ],
)
def test_other_classes_and_sets_that_are_not_there_cost_no_pass(
    run: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate.main(evaluate.EvaluateArguments([str(run)], output=str(tmp_path / "out"), **settings))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("models", "titles"),
    [
        (["a=b", "runs/x"], [("a", "b"), ("x", "runs/x")]),
        (["kappa 60=runs/w=0.5"], [("kappa 60", "runs/w=0.5")]),
        (["runs/w=0.5", "hf-hub:O/N"], [("w=0.5", "runs/w=0.5"), ("N", "hf-hub:O/N")]),
    ],
)
def test_titles(models: list[str], titles: list[tuple[str, str]]) -> None:
    assert evaluate.titled(models) == titles


def test_a_folder_gives_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lr=0.1").mkdir()
    monkeypatch.chdir(tmp_path)
    assert evaluate.titled(["lr=0.1", "."]) == [("lr=0.1", "lr=0.1"), (tmp_path.name, ".")]
    assert model_name("") == "smoke"


def test_a_scan_says_what_the_cache_does(run: Path, tmp_path: Path) -> None:
    scan.main(scan.ScanArguments(model=str(run), data="digits:train", limit=150, output=str(tmp_path)))
    record = json.loads((tmp_path / "scan.json").read_text(encoding="utf-8"))
    found = scan_features(FeatureCache.open(tmp_path / "features"))
    assert record["kappa"]["mean"] == found.kappa.mean
    assert record["num_samples"] == 150
    text = (tmp_path / "scan.md").read_text(encoding="utf-8")
    assert f"| kappa*, mean | {found.kappa.mean:.2f} |" in text
    assert f"| rejection | {found.kappa.mean:.3g} | ls |" in text
    assert (tmp_path / "kappa.png").stat().st_size > 1000


def test_results_that_are_there_are_replaced_only_when_asked(run: Path, tmp_path: Path) -> None:
    args = scan.ScanArguments(model=str(run), data="digits:train", limit=32, output=str(tmp_path))
    scan.main(args)
    with pytest.raises(FileExistsError, match=r"holds an earlier result, .* or pass --overwrite to replace it"):
        scan.main(args)
    scan.main(replace(args, overwrite=True))


def test_a_scan_is_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="scan was started on 2 processes, expected one; run it without a launcher"):
        scan.main(scan.ScanArguments(smoke=True))


def test_a_model_in_the_place_of_the_images_is_named(run: Path) -> None:
    with pytest.raises(ValueError, match=rf"{run} is a model or a run, expected images as the last word"):
        evaluate.main(evaluate.EvaluateArguments(models=["m"], data=str(run)))


@pytest.mark.parametrize("limit", [None, 300])
def test_features_are_fitted_on_what_a_long_tailed_run_saw(
    limit: int | None, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    splits = load_splits("digits")
    assert evaluate.trained_on(str(run), splits)[0] is splits
    assert evaluate.trained_on("resnet18", splits)[0] is splits
    seen = long_tailed(splits, 10.0)
    seen = seen if limit is None else seen.limit_train(limit)
    counts = torch.tensor(seen.train["label"][:]).bincount(minlength=10).tolist()
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    config["arguments"] |= {"imbalance": 10.0, "limit_train": limit}
    config["fingerprint"]["train"]["counts"] = counts
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    for spec in (str(tmp_path), f"{tmp_path}/export", f"~/{tmp_path.name}"):
        found, num = evaluate.trained_on(spec, splits)
        assert found.train["label"][:] == seen.train["label"][:]
        assert num.tolist() == counts
    other = load_splits("digits:test")
    with caplog.at_level("WARNING", logger="cosify"):
        assert evaluate.trained_on(str(tmp_path), other)[0] is other
    assert "was trained on other images, of uneven classes; scores are fitted on those of the data" in caplog.text


PAPER = yaml.safe_load((our_results.SCRIPTS / "paper.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("target", PAPER)
def test_paper_and_ours_stand_side_by_side(target: str, tmp_path: Path) -> None:
    reproduce.main(reproduce.ReproduceArguments(targets=[target], output=str(tmp_path)))
    text = (tmp_path / f"{target}.md").read_text(encoding="utf-8")
    for row, values in PAPER[target]["rows"].items():
        assert len(values) == len(PAPER[target]["columns"])
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {row} |")]
        assert line.startswith("| " + " | ".join([row, *(f"{value:g}" for value in values)]))


def test_what_was_run_is_read_and_what_was_not_is_marked(tmp_path: Path) -> None:
    reproduce.main(reproduce.ReproduceArguments(targets=["table2"], output=str(tmp_path)))
    text = (tmp_path / "table2.md").read_text(encoding="utf-8")
    runs = [json.loads(line) for line in (our_results.RESULTS / "digits" / "runs.jsonl").read_text().splitlines()]
    mean = sum(run["accuracy"] for run in runs if run["head"] == "60") / 3
    (line,) = [line for line in text.splitlines() if line.startswith("| 60 |")]
    assert f"| {100 * mean:.2f} ± " in line
    (line,) = [line for line in text.splitlines() if line.startswith("| 30 |")]
    assert line.endswith("| not run | not run | not run |")
    faces, lite0, view2 = our_results.OURS["table6"]()
    assert {each.title for each in (lite0, view2)} == {"LFW, EfficientNet-Lite0", "LFW, View 2"}
    of_many, of_one = (our_results.RESULTS / name / "verification" for name in ("celeba_faces", "celeba_faces_lite0"))
    found = json.loads((of_one / "10-0" / "verification.json").read_text())["verification"]
    assert lite0.cells["10"] == f"{100 * np.mean(found['fold_accuracies']):.2f} (n=1)"
    results = (json.loads((of_many / f"ls-{seed}" / "verification.json").read_text()) for seed in range(3))
    seeds = [100 * each["verification"]["accuracy"] for each in results]
    assert faces.cells["ls"] == f"{np.mean(seeds):.2f} ± {np.std(seeds, ddof=1):.2f} (n=3)"
    runs = [json.loads(line) for line in (our_results.RESULTS / "cifar100_lt" / "runs.jsonl").read_text().splitlines()]
    tails = {each.title: each.cells for each in our_results.OURS["table7"]()}
    mean = np.mean([run["adjusted"]["few"] for run in runs if run["head"] == "ls"])
    assert tails["few, logits adjusted"]["ls"].startswith(f"{100 * mean:.2f}")
    cifar10, omniglot, digits, _ = our_results.OURS["table4"]()
    assert omniglot.title == "CIFAR-100 to omniglot-test"
    assert list(digits.cells) == ["ls", "2 kappa*", "60", "softmax"]
    assert cifar10.cells["60"].startswith("77.50 ± ")


def test_what_is_missing_comes_with_its_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (our_results, reproduce):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "none")
    monkeypatch.chdir(tmp_path)  # where no run is
    reproduce.main(reproduce.ReproduceArguments(targets=["table3"], cifar100="FOLDER", output=str(tmp_path)))
    text = (tmp_path / "table3.md").read_text(encoding="utf-8")
    assert "python scripts/evaluate.py LS=resnet18_cifar.cos_ls_cifar100 twice=resnet18_cifar.cos_2ls_cifar100" in text
    assert "--data FOLDER --ood" in text
    with pytest.raises(ValueError, match="targets has 'table9', expected all or one of table1"):
        reproduce.main(reproduce.ReproduceArguments(targets=["table9"], output=str(tmp_path)))
