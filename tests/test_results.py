"""Numbers in the README are those of the runs under scripts/results."""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from cosify.cards import CardInfo
from cosify.cards.card import family_table, with_error
from cosify.evaluation.transferability import standard_error

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
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
        last, whole = (f"{100 * accuracy[kappa, blocks] + 1e-9:.1f} %" for blocks in ("1", "all"))
        assert f"| {kappa:g} | {last} | {whole} |" in TEXT
    assert f"({100 * results['base']['test_accuracy']:.1f} % of the 10,000 test images)" in TEXT


def evaluated(folder: str) -> list[dict[str, Any]]:
    """Return what scripts/evaluate.py wrote of each model."""
    path = ROOT / "scripts/results" / folder / "evaluation.json"
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["models"]
    return found


def diversity_cells(model: dict[str, Any]) -> list[str]:
    """Return accuracy, angles to the own class and to the span, and effective rank."""
    found, error = model["scan"]["diversity"], standard_error(model["accuracy"], model["num_test"])
    angles = [f"{found[f'mean_{each}_angle_deg']:.1f}" for each in ("class", "span")]
    return [with_error(100 * model["accuracy"], 100 * error), *angles, f"{found['effective_rank']:.0f}"]


def evaluation_rows() -> list[str]:
    """Return the README's rows on the CIFAR-100 models."""
    models, rows = evaluated("cifar100_evaluation"), []
    for model in models:
        accuracy, *diversity = diversity_cells(model)
        rows.append([model["model"], accuracy, f"{model['scan']['kappa']['mean']:.1f}", *diversity])
    for model in models:
        sets = [
            (model["miss"], ("z_max", "norm", "msp")),
            *((found, ("z_max", "norm")) for found in model["ood"].values()),
        ]
        found = [scores[name] for scores, names in sets for name in names]
        spans = [(each["ap"], each["ap_interval"]["low"], each["ap_interval"]["high"]) for each in found]
        rows.append([model["model"], *("{:.3f} [{:.3f}, {:.3f}]".format(*span) for span in spans)])
    return ["| " + " | ".join(row) + " |" for row in rows]


def weight_decay_rows() -> list[str]:
    """Return the README's rows on softmax and kappa = 60 by weight decay: CIFAR-100, and digits over seeds."""
    rows = [
        [model["model"], decay, *diversity_cells(model)]
        for decay, folder in (("5e-4", "cifar100_evaluation"), ("5e-3", "weight_decay"))
        for model in evaluated(folder)
        if model["model"] in ("softmax", "kappa 60")
    ]
    by_setting: dict[str, list[list[float]]] = {}
    for model in evaluated("weight_decay_digits"):
        setting, found = model["model"].rpartition(", seed ")[0], model["scan"]["diversity"]
        measured = [100 * model["accuracy"], found["mean_span_angle_deg"], found["effective_rank"]]
        measured += [100 * task["probe"]["top1"] for task in model["transfer"].values()]
        by_setting.setdefault(setting, []).append(measured)
    for setting, seeds in by_setting.items():
        rows.append([*setting.split(", "), *(with_error(mean(each), stdev(each)) for each in zip(*seeds, strict=True))])
    return ["| " + " | ".join(row) + " |" for row in rows]


def test_evaluation_is_quoted_whole() -> None:
    rows = evaluation_rows()
    assert len(rows) == 8
    assert [row for row in rows if row not in TEXT] == []


def test_weight_decay_is_quoted_whole() -> None:
    rows = weight_decay_rows()
    assert len(rows) == 4 + 10
    assert [row for row in rows if row not in TEXT] == []


def test_scans_are_quoted() -> None:
    for name in ("scan_lite0", "scan_cifar100_ls", "scan_cifar100_softmax"):
        scan = json.loads((ROOT / "scripts/results" / name / "scan.json").read_text(encoding="utf-8"))
        kappas = [scan["kappa"]["mean"], *(each["kappa"] for each in scan["recommendations"])]
        assert " | ".join(f"{kappa:.1f}" for kappa in kappas) + " |" in TEXT, name


def backbone_tables() -> list[str]:
    """Return the tables of the published families, made from the folders in hub_cards."""
    infos = {path.parent.name: CardInfo.of_folder(path.parent) for path in sorted(ROOT.glob("hub_cards/*/facts.yaml"))}
    families = dict.fromkeys(info.facts.siblings for info in infos.values())
    return [family_table([infos[name] for name in family]).lines() for family in families]


def test_the_families_are_quoted() -> None:
    tables = backbone_tables()
    assert len(tables) >= 1
    assert [table for table in tables if table not in TEXT] == []


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
