"""The curve passes through what verification counts, and nothing of the figure is cut or overlaps."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from cosify.evaluation import verify_pairs
from cosify.plots import plot_verification
from cosify.plots.detection import common_edges, density
from cosify.plots.verification import roc_points
from tests.plots.drawing import NAMES, Drawn, check_file, check_inside

KINDS = {
    "good": (3000, 0.0, 0.5, 0.1),
    "perfect": (3000, 0.0, 0.8, 0.05),
    "poor": (3000, 0.9, 0.02, 0.05),
    "narrow": (3000, 0.9999, 1e-5, 5e-6),
    "few": (20, 0.0, 0.3, 0.2),
}


def pairs(kind: str) -> tuple[Any, Any]:
    count, low, gap, spread = KINDS[kind]
    same = np.tile(np.arange(count // 5) < count // 10, 10)
    return np.clip(np.random.default_rng(0).normal(low + gap * same, spread), -1, 1), same


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_figure(kind: str, tmp_path: Path, drawn: Drawn) -> None:
    cosine, same = pairs(kind)
    found, output = verify_pairs(cosine, same), tmp_path / "verification.png"
    check_file(plot_verification(cosine, same, found, output, title=f"{NAMES[4]} on agedb_30"), output)
    check_inside(drawn[-1])
    curve, histogram = drawn.axes
    rates, shares = (np.asarray(each) for each in curve.lines[0].get_data())
    for rate, share in found.tar.items():
        assert shares[rates <= rate + 1e-12][-1] == pytest.approx(share, abs=1e-12)
    assert set(found.tar) == (set() if kind == "few" else {0.01, 0.001})
    assert drawn.legend(0) == [
        f"EER {found.eer:.2%}",
        *(f"TAR {share:.2%} at FAR {rate:g}" for rate, share in found.tar.items()),
    ]
    low = curve.get_ylim()[0]
    assert low < shares[0] or low == 0
    assert curve.get_ylabel() == (
        "true accepts" if low == 0 else f"true accepts (axis starts at {100 * low:.4g}%, not 0)"
    )
    assert f"accuracy {found.accuracy:.2%} ± {found.standard_error:.2%} of {len(same)} pairs" in drawn.title
    groups = {"one person": cosine[same], "two people": cosine[~same]}
    edges = common_edges(groups)
    for values, patch in zip(groups.values(), histogram.patches, strict=True):
        heights, drawn_edges, _ = patch.get_data()
        assert drawn_edges.tolist() == edges.tolist()
        assert heights.tolist() == density(values, edges).tolist()
    legend = drawn.legend(1)
    assert legend[:2] == [f"{name} (n = {len(values)})" for name, values in groups.items()]
    assert legend[2].endswith(", out of view") == (kind == "narrow")
    ticks = [text.get_window_extent() for text in histogram.get_xticklabels() if text.get_text()]
    inside = [box for box, at in zip(ticks, histogram.get_xticks(), strict=False) if edges[0] <= at <= edges[-1]]
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(inside))


@pytest.mark.parametrize("kind", ["good", "few"])
def test_points_are_those_of_scikit_learn(kind: str) -> None:
    cosine, same = pairs(kind)
    cosine = np.round(cosine, 1)  # ties
    rates, shares = roc_points(cosine[same], cosine[~same])
    false, true, _ = roc_curve(same, cosine, drop_intermediate=False)
    expected = [true[false <= rate + 1e-12].max() for rate in rates]
    assert shares == pytest.approx(expected, abs=1e-12)
    assert (rates[0], rates[-1], shares[-1]) == (1 / np.sum(~same), 1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cosine": [0.1, np.nan]}, "cosine holds NaN or infinity in 1 of 2 values"),
        ({"same": np.ones(40, bool)}, r"same has shape \[40\] of bool, expected \[40\] of bool with both"),
        ({"same": np.ones(39, bool)}, r"same has shape \[39\] of bool, expected \[40\]"),
        ({"same": np.arange(40) % 2}, r"same has shape \[40\] of int64"),
    ],
)
def test_errors(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    cosine, same = pairs("few")
    found = verify_pairs(cosine, same)
    given = {"cosine": cosine, "same": same, **change}
    with pytest.raises(ValueError, match=message):
        plot_verification(**given, found=found, output=tmp_path / "x.png", title="x")
