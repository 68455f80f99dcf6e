"""Numbers in the README are those of the runs under scripts/results."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMPARISONS = sorted(path.parent for path in (ROOT / "scripts/results").glob("*/runs.jsonl"))


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
