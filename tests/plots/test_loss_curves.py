"""The curves are Eq. (15)."""

import math
from pathlib import Path

import numpy as np
import pytest

from cosify.plots import plot_simplified_loss
from cosify.plots.loss_curves import loss_curve, vanishing_cosine
from tests.plots.drawing import Drawn, check_file, check_inside


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
@pytest.mark.parametrize("kappa", [0.5, 5.39, 60])
def test_curve_is_the_equation(num_classes: int, kappa: float) -> None:
    cosines = np.linspace(-1, 1, 9)
    expected = [-kappa * z + math.log(math.exp(kappa * z) + num_classes - 1) for z in cosines]
    assert loss_curve(cosines, num_classes, kappa) == pytest.approx(expected, abs=1e-8)  # exp rounds in the oracle


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
@pytest.mark.parametrize("kappa", [0.5, 5.39, 60])
def test_vanishing_cosine_solves_the_equation(num_classes: int, kappa: float) -> None:
    z = vanishing_cosine(num_classes, kappa)
    loss = -kappa * z + math.log(math.exp(kappa * z) + num_classes - 1)
    assert loss == pytest.approx(0.01 * math.log(num_classes), rel=1e-6)


def test_figure(tmp_path: Path, drawn: Drawn) -> None:
    output = tmp_path / "loss.png"
    check_file(plot_simplified_loss(1000, {"ls": 5.39, "kappa=60 (fixed)": 60, "kappa=1": 1}, output), output)
    check_inside(drawn[-1])
    axis = drawn.axes[0]
    assert axis.get_title() == "Simplified loss, Eq. (15), C = 1000"
    curves = axis.lines[:3]
    for curve, kappa in zip(curves, (5.39, 60, 1), strict=True):
        cosines = curve.get_xdata()
        assert (cosines[0], cosines[-1]) == (-1, 1)
        assert curve.get_ydata() == pytest.approx(loss_curve(cosines, 1000, kappa))
    assert len({curve.get_linestyle() for curve in curves}) == 3
    marked = curves[1].get_xdata()[curves[1].get_markevery()[0]]
    assert marked == pytest.approx(vanishing_cosine(1000, 60), abs=0.0025)
    assert curves[0].get_markevery() is None
    angle = round(math.degrees(math.acos(vanishing_cosine(1000, 60))))
    assert drawn.legend()[1] == f"kappa=60 (fixed): below 1% from {angle}°"
    left = (math.log(math.exp(5.39) + 999) - 5.39) / math.log(1000)
    assert drawn.legend()[0] == f"ls, kappa = 5.39: {left:.1%} left at 0°"


def test_errors(tmp_path: Path) -> None:
    output = tmp_path / "loss.png"
    with pytest.raises(ValueError, match=r"kappas is empty, expected at least one entry"):
        plot_simplified_loss(10, {}, output)
    with pytest.raises(ValueError, match=r"kappa is nan, expected a finite number above 0"):
        plot_simplified_loss(10, {"a": float("nan")}, output)
    with pytest.raises(ValueError, match=r"expected at least (2|two)"):
        plot_simplified_loss(1, {"a": 5.0}, output)
    assert not output.exists()
