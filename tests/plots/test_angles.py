"""Histograms of angles hold every sample, and an undefined angle is named as such."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosify.plots import plot_angles
from cosify.plots.angles import angle_edges
from tests.plots.drawing import NAMES, Drawn, check_file, check_inside


def test_edges() -> None:
    edges = angle_edges({"a": np.array([10.0, 20]), "b": np.array([15.0, 40])})
    assert (edges[0], edges[-1]) == (10, 40)
    assert angle_edges({"a": np.array([7.0])})[[0, -1]].tolist() == [7, 8]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4, 6])
def test_figure(tmp_path: Path, drawn: Drawn, count: int) -> None:
    rng = np.random.default_rng(0)
    to_class = {name: rng.uniform(10 + index, 30, 500) for index, name in enumerate(NAMES[:count])}
    to_span = {name: values / 2 if name != NAMES[1] else np.array([]) for name, values in to_class.items()}
    output = tmp_path / "angles.png"
    check_file(plot_angles(to_class, to_span, output), output)
    check_inside(drawn[-1])
    assert [axis.get_xlabel() for axis in drawn.axes] == ["angle (degrees)"] * 2
    for index, angles in enumerate((to_class, to_span)):
        legend = [" ".join(entry.split()) for entry in drawn.legend(index)]
        for (name, values), patch, entry in zip(angles.items(), drawn.axes[index].patches, legend, strict=True):
            if values.size == 0:
                assert entry == f"{name}: not defined: C >= d"
                assert np.isnan(patch.get_data().values).all()
                continue
            assert entry == f"{name}: mean {values.mean():.1f}°"
            heights, edges, _ = patch.get_data()
            assert (heights * np.diff(edges)).sum() == pytest.approx(1)
            assert (heights * np.diff(edges) * 500).round(6).tolist() == np.histogram(values, edges)[0].tolist()
        assert len({str(patch.get_linestyle()) for patch in drawn.axes[index].patches}) == count


def test_no_model_has_a_subspace(tmp_path: Path, drawn: Drawn) -> None:
    plot_angles({"a": [20.0, 30]}, {"a": []}, tmp_path / "angles.png")
    assert [" ".join(text.get_text().split()) for text in drawn.axes[1].texts] == ["not defined: C >= d"]


@pytest.mark.parametrize(
    ("to_class", "to_span", "message"),
    [
        ({}, {}, r"to_class is empty"),
        ({"a": [1.0]}, {}, r"to_class has \['a'\] and to_span has \[\], expected the same models"),
        ({"a": []}, {"a": [1.0]}, r"to_class\['a'\] has shape \[0\], expected at least one sample"),
        ({"a": [181.0]}, {"a": []}, r"to_class\['a'\] holds 181 to 181, expected 0 to 180 degrees"),
        ({"a": [1.0]}, {"a": [91.0]}, r"to_span\['a'\] holds 91 to 91, expected 0 to 90 degrees"),
        ({"a": [1.0]}, {"a": [np.nan]}, r"to_span\['a'\] holds NaN"),
    ],
)
def test_errors(tmp_path: Path, to_class: Any, to_span: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_angles(to_class, to_span, tmp_path / "angles.png")
