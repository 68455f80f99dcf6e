"""Bars end at the values, whiskers at the intervals, and histograms count every sample."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosify.plots import plot_detection_bars, plot_score_histograms
from cosify.plots.detection import bar_limits, common_edges, density
from tests.plots.drawing import NAMES, Drawn, check_file, check_inside

BARS = {
    "z_max": {"softmax": (0.912, 0.9, 0.92), "ls": (0.95, 0.94, 0.96)},
    "max logit": {"softmax": (0.88, 0.881, 0.89)},  # outside of its interval
}


def test_bars(tmp_path: Path, drawn: Drawn) -> None:
    output = tmp_path / "bars.png"
    check_file(plot_detection_bars(BARS, output, quantity="AUROC", title="SVHN"), output)
    check_inside(drawn[-1])
    axis = drawn.axes[0]
    bars = [(bar.get_x() + bar.get_width() / 2, bar.get_y() + bar.get_height()) for bar in axis.patches]
    assert bars == [pytest.approx(each) for each in [(-0.21, 0.912), (0.21, 0.95), (0.79, 0.88)]]
    assert [bar.get_hatch() or "" for bar in axis.patches] == ["", "////", ""]
    whiskers = [tuple(lines.get_segments()[0][:, 1]) for lines in axis.collections]
    assert whiskers == [pytest.approx(each) for each in [(0.9, 0.92), (0.94, 0.96), (0.881, 0.89)]]
    assert [text.get_text() for text in axis.texts] == [".912", ".950", ".880"]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["z_max", "max logit"]
    assert axis.get_title() == "AUROC: SVHN"
    low = axis.get_ylim()[0]
    assert low == pytest.approx(0.86)
    assert axis.get_ylabel() == "AUROC (axis starts at 0.86, not 0)"
    assert drawn.legend() == ["softmax", "ls"]


@pytest.mark.slow
@pytest.mark.parametrize(("scores", "rotation", "texts"), [(2, 0, 12), (6, 90, 36), (9, None, 0)])
def test_many_bars(tmp_path: Path, drawn: Drawn, scores: int, rotation: int | None, texts: int) -> None:
    values = {f"score {index}": {name: (0.9, 0.89, 0.91) for name in NAMES} for index in range(scores)}
    plot_detection_bars(values, tmp_path / "bars.png", quantity="AP", title="misclassified samples")
    check_inside(drawn[-1])
    assert len(drawn.axes[0].patches) == 6 * scores
    assert len(drawn.axes[0].texts) == texts
    assert all(text.get_rotation() == rotation for text in drawn.axes[0].texts)


@pytest.mark.parametrize(
    ("values", "low"), [([0.9, 0.89, 0.95], 0.87), ([0.5, 0.5, 0.5], 0.499), ([0.05, 0.03, 0.9], 0), ([0, 0, 0], 0)]
)
def test_limits(values: list[float], low: float) -> None:
    assert bar_limits(np.array([values])) == (pytest.approx(low, abs=1e-9), max(values))


def test_bars_that_start_at_zero_do_not_say_otherwise(tmp_path: Path, drawn: Drawn) -> None:
    plot_detection_bars({"a": {"m": (0.04, 0.01, 0.06)}}, tmp_path / "bars.png", quantity="FPR95", title="x")
    assert drawn.axes[0].get_ylabel() == "FPR95"
    assert drawn.axes[0].get_ylim()[0] == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"values is empty"),
        ({"a": {}}, r"values\['a'\] is empty"),
        ({"a": {"m": (0.9, 0.95, 0.8)}}, r"values\['a'\]\['m'\] is \(0.9, 0.95, 0.8\), expected .* low <= high"),
        ({"a": {"m": (0.9, 0.8)}}, r"expected \(value, low, high\)"),
        ({"a": {"m": (np.nan, 0.8, 0.9)}}, r"values\['a'\]\['m'\] holds NaN or infinity in 1 of 3"),
    ],
)
def test_bars_errors(tmp_path: Path, values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_detection_bars(values, tmp_path / "bars.png", quantity="AP", title="x")


def test_density_counts_what_is_out_of_view() -> None:
    values, edges = np.array([0.1, 0.2, 0.6, 7.0]), np.array([0, 0.5, 1.0])
    assert density(values, edges).tolist() == [1.0, 0.5]


def test_edges_hold_each_group_however_small() -> None:
    rng = np.random.default_rng(0)
    large, small = rng.normal(0, 1, 100_000), rng.normal(8, 1, 100)
    edges = common_edges({"large": large, "small": small})
    assert edges[0] == pytest.approx(np.percentile(large, 0.5))
    assert edges[-1] == pytest.approx(np.percentile(small, 99.5))
    assert common_edges({"a": np.ones(5)})[[0, -1]].tolist() == [0.5, 1.5]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4, 6])
def test_histograms(tmp_path: Path, drawn: Drawn, count: int) -> None:
    rng = np.random.default_rng(1)
    panels = {
        name: {"correct": rng.beta(9, 2, 900), "misclassified": rng.beta(5, 5, 100), "SVHN": rng.beta(2, 5, 2000)}
        for name in NAMES[:count]
    }
    output = tmp_path / "hist.png"
    path = plot_score_histograms(panels, output, score="z_max")
    check_file(path, output, 1001 if count > 1 else 721)
    check_inside(drawn[-1])
    assert drawn.title.startswith("Distribution of z_max")
    for index, (name, groups) in enumerate(panels.items()):
        axis = drawn.axes[index]
        assert " ".join(axis.get_title().split()) == name
        assert drawn.legend(index) == ["correct (n = 900)", "misclassified (n = 100)", "SVHN (n = 2000)"]
        edges = common_edges(groups)
        for values, patch in zip(groups.values(), axis.patches, strict=True):
            heights, drawn_edges, _ = patch.get_data()
            assert drawn_edges.tolist() == edges.tolist()
            assert heights.tolist() == density(values, edges).tolist()
            assert 0.98 <= (heights * np.diff(edges)).sum() <= 1
        assert len({patch.get_linestyle() for patch in axis.patches}) == 3


@pytest.mark.parametrize(("count", "length"), [(1, 200), (2, 60), (2, 120)])
def test_a_group_with_a_long_name_leaves_room_for_the_curves(
    tmp_path: Path, drawn: Drawn, count: int, length: int
) -> None:
    groups = {"correct": np.arange(9.0), "x" * length: np.arange(9.0) + 3}
    plot_score_histograms(dict.fromkeys(NAMES[:count], groups), tmp_path / "hist.png", score="z_max")
    check_inside(drawn[-1])
    for index in range(count):
        assert drawn.axes[index].get_window_extent().height > 150, "pixels"
        assert "".join(drawn.legend(index)[1].split()) == f"{'x' * length}(n=9)"


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        ({}, r"panels is empty"),
        ({"m": {}}, r"panels\['m'\] is empty"),
        ({"m": {"SVHN": []}}, r"panels\['m'\]\['SVHN'\] has shape \[0\], expected at least one sample; leave it out"),
        ({"m": {"SVHN": [1, np.inf]}}, r"panels\['m'\]\['SVHN'\] holds NaN or infinity in 1 of 2 values"),
    ],
)
def test_histograms_errors(tmp_path: Path, panels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_score_histograms(panels, tmp_path / "hist.png", score="z_max")
