"""The curve holds every fixed kappa, and other heads stand at theirs."""

from pathlib import Path

import pytest

from cosify.plots import Accuracy, plot_accuracy_by_kappa
from tests.plots.drawing import Drawn, check_file, check_inside

FIXED = {20.0: Accuracy(0.92, 0.01, 20.0), 1.0: Accuracy(0.7, 0.1, 1.0), 5.0: Accuracy(0.925, 0.0, 5.0)}


def test_points_and_lines(tmp_path: Path, drawn: Drawn) -> None:
    output = tmp_path / "f.png"
    others = {"LS": Accuracy(0.93, 0.002, 7.8), "softmax": Accuracy(0.91, 0.004, None)}
    check_file(plot_accuracy_by_kappa(FIXED, others, output, title="100 classes"), output)
    check_inside(drawn[-1])
    (axis,) = drawn.axes
    curve, star = (container[0].get_xydata() for container in axis.containers)
    assert curve.tolist() == [[1.0, 70.0], [5.0, 92.5], [20.0, 92.0]]
    assert star.tolist() == [[7.8, 93.0]]
    assert {"LS: 93.0 ± 0.2 %, kappa* = 7.8", "softmax: 91.0 ± 0.4 %", "kappa fixed by hand"} == set(drawn.legend())


def test_one_kappa_is_no_curve(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="accuracy of 1 fixed kappas came, expected at least two"):
        plot_accuracy_by_kappa({5.0: FIXED[5.0]}, {}, tmp_path / "f.png", title="t")
