"""Numbers on the page of results are those of the runs beside it."""

import json
import re
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from cosify.cards import CardInfo
from cosify.cards.card import family_table

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "scripts/results/README.md").read_text(encoding="utf-8")
COMPARISONS = sorted(path.parent for path in (ROOT / "scripts/results").glob("**/runs.jsonl"))


@pytest.mark.parametrize("folder", COMPARISONS, ids=lambda folder: folder.name)
def test_tables_are_quoted_whole(folder: Path) -> None:
    rows = (folder / "table.md").read_text(encoding="utf-8").splitlines()
    assert len(rows) > 3
    assert [row for row in rows if row not in TEXT] == []


@pytest.mark.parametrize("folder", COMPARISONS, ids=lambda folder: folder.name)
def test_tables_are_made_from_their_runs(folder: Path) -> None:
    runs = [json.loads(line) for line in (folder / "runs.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = json.loads((folder / "table.json").read_text(encoding="utf-8"))["rows"]
    assert {row["head"] for row in rows} == {run["head"] for run in runs}
    for row in rows:
        accuracies = [run["accuracy"] for run in runs if run["head"] == row["head"]]
        assert row["accuracy"] == pytest.approx(sum(accuracies) / len(accuracies))
        assert len(row["seeds"]) == len(accuracies)


def test_cosify_figures_are_those_of_the_runs() -> None:
    results = json.loads((ROOT / "scripts/results/cosify_lite0/results.json").read_text(encoding="utf-8"))
    accuracy = {(row["kappa"], row["blocks"]): row["test_accuracy"] for row in results["rows"]}
    for kappa in (10.0, 60.0):
        for blocks, name in (("1", "last block"), ("all", "all")):
            share = f"{100 * accuracy[kappa, blocks]:.2f}"  # beside the paper's seven columns
            assert re.search(rf"^\| {kappa:g}, {name} (\| [\d.]+ ){{7}}\| {share} \|", TEXT, re.MULTILINE)
    assert f"| {100 * results['base']['test_accuracy']:.2f} |" in TEXT


def evaluated(folder: str) -> list[dict[str, Any]]:
    """Return what scripts/evaluate.py wrote of each model."""
    path = ROOT / "scripts/results" / folder / "evaluation.json"
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["models"]
    return found


def test_evaluation_is_quoted() -> None:
    models = evaluated("cifar100_evaluation")
    assert len(models) == 4
    for model in models:
        found = model["scan"]["diversity"]
        angles = [f"{found[f'mean_{each}_angle_deg']:.4g}" for each in ("class", "span")]
        assert f"| {' | '.join(angles)} | {found['numerical_rank']} | {found['effective_rank']:.4g} |" in TEXT
        for scores in (model["miss"], *model["ood"].values()):
            cells = [
                "{ap:.3f} [{low:.3f}, {high:.3f}]".format(ap=one["ap"], **one["ap_interval"])
                for one in (scores[name] for name in ("z_max", "norm", "norm_mahalanobis"))
            ]
            assert " | ".join(cells) in TEXT


def test_weight_decay_is_quoted() -> None:
    by_setting: dict[str, list[list[float]]] = {}
    for model in evaluated("weight_decay_digits"):
        setting, found = model["model"].rpartition(", seed ")[0], model["scan"]["diversity"]
        measured = [100 * model["accuracy"], found["mean_span_angle_deg"], found["effective_rank"]]
        measured += [100 * task["probe"]["top1"] for task in model["transfer"].values()]
        by_setting.setdefault(setting, []).append(measured)
    assert len(by_setting) == 10
    for setting, seeds in by_setting.items():
        cells = (f"{mean(each):.1f} ± {stdev(each):.1f}" for each in zip(*seeds, strict=True))
        assert f"| {setting} | {len(seeds)} | {' | '.join(cells)} |" in TEXT
    for model in evaluated("weight_decay"):
        assert f"| {model['model']} | 1 | {100 * model['accuracy']:.1f} |" in TEXT


def test_scans_are_quoted() -> None:
    for name in ("scan_lite0", "scan_cifar100_ls", "scan_cifar100_softmax"):
        scan = json.loads((ROOT / "scripts/results" / name / "scan.json").read_text(encoding="utf-8"))
        kappas = [scan["kappa"]["mean"], *(each["kappa"] for each in scan["recommendations"])]
        assert " | ".join(f"{kappa:.1f}" for kappa in kappas) + " |" in TEXT, name


def test_the_families_are_quoted() -> None:
    infos = {path.parent.name: CardInfo.of_folder(path.parent) for path in sorted(ROOT.glob("hub_cards/*/facts.yaml"))}
    families = dict.fromkeys(info.facts.siblings for info in infos.values())
    page = (ROOT / "hub_cards/README.md").read_text(encoding="utf-8")
    assert len(families) >= 2
    assert [name for name in families if family_table([infos[each] for each in name]).lines().strip() not in page] == []


def test_steps_on_a_gpu_are_quoted() -> None:
    cases = json.loads((ROOT / "scripts/results/gpu/nvidia_h200/step.json").read_text(encoding="utf-8"))["cases"]
    for name, case in zip(("eager", "`torch.compile`"), cases, strict=True):
        speed = case["images_per_second"]
        ratios = [speed["LS"] / speed[other] for other in ("fixed", "softmax")]
        cells = [
            name,
            *(f"{speed[head]:.0f}" for head in ("LS", "fixed", "softmax")),
            *(f"{each:.3f}" for each in ratios),
        ]
        assert f"| {' | '.join(cells)} |" in TEXT
