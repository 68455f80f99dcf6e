"""Heads with a kappa are one curve in its order, softmax is a line with a band."""

from pathlib import Path

import pytest

from cosify.plots import Accuracy, plot_kappa_tradeoff
from tests.plots.drawing import Drawn, check_file, check_inside

HEADS = {
    "60": Accuracy(0.7, 0.02, 60.0),
    "LS": Accuracy(0.9, 0.01, 14.3),
    "softmax": Accuracy(0.8, 0.03, None),
}


def test_curve_and_line(tmp_path: Path, drawn: Drawn) -> None:
    output = tmp_path / "f.png"
    panels = {"errors told apart": HEADS, "transfer": {name: HEADS[name] for name in ("60", "LS")}}
    check_file(plot_kappa_tradeoff(panels, output, title="3 seeds"), output)
    check_inside(drawn[-1])
    first, second = drawn.axes
    assert [axis.get_title() for axis in (first, second)] == ["errors told apart", "transfer"]
    assert first.containers[0][0].get_xydata().tolist() == [[14.3, 90.0], [60.0, 70.0]]
    assert [label.get_text() for label in first.get_xticklabels()] == ["LS\n14.3", "60\n60"]
    (line,) = [line for line in first.lines if line.get_label() == "softmax"]
    assert set(line.get_ydata()) == {80.0}
    (band,) = first.patches
    assert band.get_extents().transformed(first.transData.inverted()).intervaly == pytest.approx([77, 83])
    assert not second.patches


def test_one_kappa_is_no_curve(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'transfer' has 1 heads with a kappa, expected at least two"):
        plot_kappa_tradeoff({"transfer": {"LS": HEADS["LS"]}}, tmp_path / "f.png", title="t")
