"""scripts/benchmark.py as CI starts it; its times are not judged."""

import json
from pathlib import Path

import pytest

from cosify.errors import InputError
from cosify.settings import check
from scripts.benchmark import BenchmarkArguments
from tests.processes import ROOT, run_python

SCRIPT = str(ROOT / "scripts" / "benchmark.py")


def test_repeats_that_are_given_win() -> None:
    assert [BenchmarkArguments(quick=quick).steps for quick in (True, False)] == [3, 9]
    assert [BenchmarkArguments(quick=quick, repeats=20).steps for quick in (True, False)] == [20, 20]
    assert BenchmarkArguments(quick=True, device="cuda").steps == 9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 0}, "threads is 0, expected at least 1; change --threads"),
        ({"repeats": 1}, "repeats is 1, expected at least 2, for a spread, or nothing; change --repeats"),
        ({"seed": 2**32}, "seed is 4294967296, expected a whole number from 0 to 4294967295"),
    ],
)
def test_numbers_that_cannot_be_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(BenchmarkArguments(**settings))  # type: ignore[arg-type]  # numbers alone


@pytest.mark.slow
def test_quick_run_is_exact_and_writes_its_tables(tmp_path: Path) -> None:
    run_python(SCRIPT, "--quick", "--output", str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"benchmark.json", "benchmark.md"}
    content = json.loads((tmp_path / "benchmark.json").read_text())
    assert [(row["shape"], row["kind"]) for row in content["loss"]] == [
        ([32, 64, 50], "planted"),
        ([64, 128, 2000], "planted"),
        ([64, 128, 2000], "random"),
        ([64, 128, 2000], "tight"),
    ]
    for row in content["loss"]:
        assert row["wrong_index"] == 0
        assert row["ties"] < row["shape"][0] / 4, "most samples are compared"
        assert 0 < row["embedding_gradient_error"] < 1e-5
        assert 0 < row["weight_gradient_error"] < 1e-5
        assert {"plain", "naive", "certified", "in-model", "fixed"} <= set(row["timings"])
        assert all(timing["median_ms"] > 0 for timing in row["timings"].values())
    assert [row["contender"] for row in content["memory"]] == ["plain", "certified"]
    plain, certified = (row["peak_mb"] for row in content["memory"])
    assert 0 < certified < plain
    (row,) = content["evaluation"]
    assert row["shape"] == [1, 512, 1000]
    assert row["linear_us"] > 0
    assert 0.5 < row["ratios"]["fixed"] < row["ratios"]["LS per sample"]
    assert content["failures"] == []
    assert content["arguments"]["quick"] is True
    assert content["arguments"]["repeats"] == 3
    assert content["environment"]["packages"]["torch"]
    tables = (tmp_path / "benchmark.md").read_text()
    assert "| 64, 128, 2000 | tight |" in tables
    assert "| 64, 128, 2000 | certified |" in tables
    assert "## Evaluation, as ratios to nn.Linear" in tables
