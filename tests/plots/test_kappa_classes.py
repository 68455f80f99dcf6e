"""Kappa by class and by candidate are counted as they are named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosify.functional import kappa_grid
from cosify.plots import plot_kappa_by_class, plot_kappa_histogram
from cosify.plots.kappa_classes import kappa_by_class, shortened
from tests.plots.drawing import NAMES, Drawn, check_file, check_inside

GRID = kappa_grid().double().numpy()


def test_by_class_is_sorted() -> None:
    kappa, labels = np.array([5.0, 1, 2, 3, 4, 9]), [2, 0, 0, 0, 0, 2]
    low, high = 1.3, 3.7  # between the order statistics, linearly
    classes, found = kappa_by_class(kappa, labels)
    assert classes.tolist() == [0, 2]
    np.testing.assert_allclose(found, [[2.5, low, high], [7.0, 5.4, 8.6]])


def test_few_classes_are_all_drawn(tmp_path: Path, drawn: Drawn) -> None:
    output = tmp_path / "classes.png"
    kappa, labels = np.array([8.0, 2, 4, 3]), np.array([0, 1, 1, 3])
    check_file(plot_kappa_by_class(kappa, labels, ["cat", "dog", "absent", "ox"], output), output)
    check_inside(drawn[-1])
    axis = drawn.axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["dog", "ox", "cat"]
    assert axis.lines[0].get_xdata().tolist() == [3, 3, 8]
    assert axis.collections[0].get_segments()[0][:, 0] == pytest.approx([2.2, 3.8])
    assert axis.lines[1].get_xdata()[0] == 4.25
    assert "lowest" not in axis.get_title()
    assert drawn.legend()[-1] == "mean of all samples, 4.25"


def test_of_many_classes_the_ends_are_drawn(tmp_path: Path, drawn: Drawn) -> None:
    order = np.random.default_rng(0).permutation(100)
    plot_kappa_by_class(1.0 + order, np.arange(100), [f"class {k}" for k in order], tmp_path / "classes.png", show=3)
    axis = drawn.axes[0]
    names = [text.get_text() for text in axis.get_yticklabels()]
    assert names == [f"class {index}" for index in (0, 1, 2, 97, 98, 99)]
    assert axis.lines[0].get_ydata().tolist() == [0, 1, 2, 4, 5, 6]
    assert axis.get_title().endswith("the 3 lowest and 3 highest of 100 classes")
    assert axis.texts[0].get_text() == "94 classes between"


def test_shortened() -> None:
    assert shortened("tench") == "tench"
    assert shortened("great white shark, white shark, man-eater") == "great white shark, white shark..."
    assert len(shortened("x" * 90)) == 34


@pytest.mark.parametrize(
    ("kappa", "labels", "show", "message"),
    [
        ([], [], 15, r"kappa has shape \[0\], expected at least one sample"),
        ([1.0, np.nan], [0, 1], 15, r"kappa holds NaN or infinity in 1 of 2"),
        ([1.0, 0.0], [0, 1], 15, r"kappa holds 0, expected kappa > 0; pass kappa = 1 / temperature"),
        ([1.0, 2.0], [0], 15, r"labels has shape \[1\], expected \[2\], one label per sample"),
        ([1.0], [5], 15, r"labels holds 5 to 5, expected 0 to 1 for 2 label_names"),
        ([1.0], [0], 0, r"show is 0, expected at least 1"),
    ],
)
def test_by_class_errors(tmp_path: Path, kappa: Any, labels: Any, show: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_kappa_by_class(kappa, labels, ["cat", "dog"], tmp_path / "classes.png", show=show)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4, 6])
def test_histogram(tmp_path: Path, drawn: Drawn, count: int) -> None:
    rng = np.random.default_rng(1)
    kappas = {name: GRID[rng.integers(5 + index, 12 + index, 400)] for index, name in enumerate(NAMES[:count])}
    kappas[NAMES[0]][:100] = GRID[-1]
    output = tmp_path / "histogram.png"
    check_file(plot_kappa_histogram(kappas, output), output)
    check_inside(drawn[-1])
    for (name, kappa), axis in zip(kappas.items(), drawn.axes, strict=True):
        heights = [bar.get_height() for bar in axis.containers[0]]
        assert heights == pytest.approx([np.isclose(kappa, candidate).mean() for candidate in GRID])
        centres = [np.sqrt(bar.get_x() * (bar.get_x() + bar.get_width())) for bar in axis.containers[0]]
        assert centres == pytest.approx(GRID)
        assert axis.get_xscale() == "log"
        assert axis.lines[0].get_xdata()[0] == pytest.approx(kappa.mean())
        edge = "25.0%" if name == NAMES[0] else "0.0%"
        title = f"{name}: mean {kappa.mean():.2f}, at the edges of the grid: 0.0% low, {edge} high"
        assert axis.get_title(loc="left") == title


def test_the_numbers_of_a_long_name_are_in_view(tmp_path: Path, drawn: Drawn) -> None:
    names = [f"tf_efficientnet_lite0.cos_{kappa}_in1k_ft_tinyin200 on my_own_pictures" for kappa in ("ls", "2ls")]
    plot_kappa_histogram(dict.fromkeys(names, GRID), tmp_path / "histogram.png")
    check_inside(drawn[-1])
    for name, axis in zip(names, drawn.axes, strict=True):
        title = " ".join(axis.get_title(loc="left").split())
        assert title == f"{name}: mean {GRID.mean():.2f}, at the edges of the grid: 5.0% low, 5.0% high"


def test_histogram_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"kappas is empty"):
        plot_kappa_histogram({}, tmp_path / "histogram.png")
    with pytest.raises(ValueError, match=r"kappas\['ls'\] has shape \[0\]"):
        plot_kappa_histogram({"ls": []}, tmp_path / "histogram.png")
    with pytest.raises(ValueError, match=r"kappas\['ls'\] holds -1, expected kappa > 0"):
        plot_kappa_histogram({"ls": [-1.0]}, tmp_path / "histogram.png")
