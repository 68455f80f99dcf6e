"""The curve is the mean of its classes; the groups are shaded where they are."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cosify.evaluation import long_tail_accuracy
from cosify.plots import ClassAccuracies, plot_class_sizes
from tests.plots.drawing import NAMES, Drawn, check_file, check_inside


def test_curves_are_means_over_classes_of_about_one_size(tmp_path: Path, drawn: Drawn) -> None:
    counts = np.arange(5, 505, 5)
    models = {name: ClassAccuracies(counts, np.linspace(0.1 * index, 1, 100)) for index, name in enumerate(NAMES[:2])}
    models[NAMES[0]].accuracy[3] = np.nan
    output = tmp_path / "class_sizes.png"
    check_file(plot_class_sizes(models, output), output)
    check_inside(drawn[-1])
    (axis,) = drawn.axes
    points, curve, *_ = axis.get_lines()
    assert len(points.get_xdata()) == 99
    assert curve.get_ydata() == pytest.approx(
        [100 * part.mean() for part in np.array_split(np.delete(models[NAMES[0]].accuracy, 3), 10)]
    )
    assert axis.get_xscale() == "log"


@pytest.mark.parametrize("counts", [[3, 7], [300, 900], [50]])
def test_few_classes_and_single_groups(tmp_path: Path, drawn: Drawn, counts: list[int]) -> None:
    found = ClassAccuracies(np.array(counts), np.full(len(counts), 0.5))
    check_file(plot_class_sizes({"a": found}, tmp_path / "a.png"), tmp_path / "a.png")
    check_inside(drawn[-1])


def test_what_long_tail_accuracy_returns_can_be_drawn(tmp_path: Path, drawn: Drawn) -> None:
    counts = torch.tensor([20, 60])  # within a decade, where only minor ticks have numbers
    found = long_tail_accuracy(torch.tensor([0, 1, 0]), torch.tensor([0, 1, 1]), counts)
    plot_class_sizes({"net": ClassAccuracies(counts, found.by_class)}, tmp_path / "a.png")
    (axis,) = drawn.axes
    assert axis.get_lines()[0].get_xydata().tolist() == [[20, 100], [60, 50]]
    numbers = [label.get_text() for label in axis.get_xticklabels(minor=True)]
    assert {"20", "60"} <= set(numbers), numbers


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="models is empty, expected at least one entry"):
        plot_class_sizes({}, tmp_path / "a.png")
    for counts, accuracy in (([5, 2], [np.nan, np.nan]), ([0, 0], [0.5, 0.5])):
        nothing = ClassAccuracies(np.array(counts), np.array(accuracy))
        with pytest.raises(ValueError, match="net has no class with training images and an accuracy, expected one"):
            plot_class_sizes({"net": nothing}, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
