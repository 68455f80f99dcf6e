"""The curve is the least kappa* of the closed form; every set stands at its place, with its name."""

import math
from pathlib import Path

import pytest

from cosify.functional.grid import least_kappa
from cosify.plots import plot_kappa_by_num_classes
from tests.plots.drawing import Drawn, check_file, check_inside


# The least kappa* over c at orthogonal classes.
@pytest.mark.parametrize(("num_classes", "kappa"), [(10, 4.56), (100, 7.46), (1000, 10.1), (8142, 12.4), (93431, 15.1)])
def test_least_kappa(num_classes: int, kappa: float) -> None:
    assert least_kappa(num_classes) == pytest.approx(kappa, abs=0.06)
    around = [math.log(1 + num_classes * c / (1 - c)) / c for c in (0.2, 0.5, 0.8, 0.95)]
    assert least_kappa(num_classes) <= min(around)


def test_points_and_curve(tmp_path: Path, drawn: Drawn) -> None:
    paper_s = {"CIFAR-10": (10, 5.39), "faces": (93_431, 16.56), "more faces": (93_431, 16.5)}
    groups = {"paper": paper_s, "ours": {"digits": (10, 4.7)}}
    output = tmp_path / "kappa.png"
    check_file(plot_kappa_by_num_classes(groups, output, title="kappa* by classes"), output)
    check_inside(drawn[-1])
    (axis,) = drawn.axes
    curve, paper, ours = axis.get_lines()
    assert list(zip(*paper.get_data(), strict=True)) == list(paper_s.values())
    assert list(zip(*ours.get_data(), strict=True)) == [(10, 4.7)]
    assert curve.get_ydata() == pytest.approx([least_kappa(int(num)) for num in curve.get_xdata()])
    assert [text.get_text() for text in axis.texts] == ["CIFAR-10", "more faces, faces", "digits"]


@pytest.mark.parametrize("groups", [{}, {"a": {}}, {"a": {"x": (1, 5.0)}}, {"a": {"x": (10, math.nan)}}])
def test_points_that_cannot_be_drawn(groups: dict[str, dict[str, tuple[int, float]]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least one, of two classes or more and a kappa above 0"):
        plot_kappa_by_num_classes(groups, tmp_path / "a.png", title="nothing")
