"""Bins and calibration error equal a loop over samples, and the figure shows them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosify.plots import plot_reliability
from cosify.plots.reliability import reliability_bins
from tests.plots.drawing import NAMES, Drawn, check_file, check_inside


def by_loop(confidence: Any, correct: Any, num_bins: int) -> tuple[list[int], float]:
    edges = np.linspace(0, 1, num_bins + 1)
    members: list[list[int]] = [[] for _ in range(num_bins)]
    for sample, value in enumerate(confidence):
        for index in range(num_bins):
            if edges[index] < value <= edges[index + 1] or (value == 0 and index == 0):
                members[index].append(sample)
    error = 0.0
    for each in members:
        if each:
            accuracy = sum(bool(correct[sample]) for sample in each) / len(each)
            mean = sum(float(confidence[sample]) for sample in each) / len(each)
            error += len(each) / len(confidence) * abs(accuracy - mean)
    return [len(each) for each in members], error


@pytest.mark.parametrize("num_bins", [1, 10, 15])
@pytest.mark.parametrize("seed", [0, 1])
def test_bins_equal_a_loop(num_bins: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Edges, 0 and 1 are among them.
    confidence = np.concatenate([rng.beta(5, 1, 300), np.linspace(0, 1, num_bins + 1)])
    correct = rng.random(len(confidence)) < confidence**2
    bins = reliability_bins(confidence, correct, num_bins)
    counts, error = by_loop(confidence, correct, num_bins)
    assert bins.counts.tolist() == counts
    assert bins.ece == pytest.approx(error, abs=1e-12)


def test_known_answers() -> None:
    bins = reliability_bins([0.5, 0.5, 1.0, 1.0], np.array([True, False, True, False]), 2)
    assert bins.counts.tolist() == [2, 2]  # 0.5 belongs to the lower bin
    assert bins.accuracy.tolist() == [0.5, 0.5]
    assert bins.confidence.tolist() == [0.5, 1.0]
    assert bins.ece == pytest.approx(0.25)
    # An empty bin has no accuracy, and no part in the error.
    assert np.isnan(reliability_bins([0.9], np.array([True]), 2).accuracy[0])
    assert reliability_bins([0.9], np.array([True]), 2).ece == pytest.approx(0.1)
    # float32's softmax exceeds 1 by rounding.
    assert reliability_bins([1 + 2e-7], np.array([True]), 15).counts[-1] == 1


@pytest.mark.parametrize("count", [1, 5, 6])
def test_figure(tmp_path: Path, drawn: Drawn, count: int) -> None:
    rng = np.random.default_rng(2)
    curves = {}
    for name in NAMES[:count]:
        confidence = rng.beta(6, 1, 1000)
        curves[name] = (confidence, rng.random(1000) < confidence**1.5)
    output = tmp_path / "reliability.png"
    check_file(plot_reliability(curves, output), output, 1001 if count > 1 else 721)
    check_inside(drawn[-1])
    uppers = [axis for axis in drawn.axes if axis.get_title()]
    lowers = [axis for axis in drawn.axes if not axis.get_title()]
    assert len(uppers) == len(lowers) == count
    for (name, curve), upper, lower in zip(curves.items(), uppers, lowers, strict=True):
        bins = reliability_bins(*curve)
        assert " ".join(upper.get_title().split()) == f"{name} ECE {bins.ece:.2%}"
        used = bins.counts > 0
        bars, gaps = (np.array([bar.get_height() for bar in each]) for each in upper.containers)
        assert bars == pytest.approx(bins.accuracy[used])
        assert gaps == pytest.approx(np.abs(bins.accuracy - bins.confidence)[used])
        assert all(bar.get_hatch() for bar in upper.containers[1])
        assert [bar.get_height() for bar in lower.containers[0]] == pytest.approx(bins.counts[used] / 1000)
        assert lower.lines[0].get_xdata()[0] == pytest.approx(curve[0].mean())


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([], np.array([], bool), r"curves\['m'\]: confidence has shape \[0\], expected at least one sample"),
        ([np.nan], np.array([True]), r"confidence holds NaN or infinity in 1 of 1"),
        ([0.5], np.array([1]), r"correct is int64, expected bool; pass predictions == labels"),
        ([0.5], np.array([True, False]), r"correct has shape \[2\] and confidence \[1\], expected the same"),
        ([7.5], np.array([True]), r"confidence holds 7.5 to 7.5, expected 0 to 1; pass probabilities"),
        ([-0.1], np.array([True]), r"confidence holds -0.1 to -0.1, expected 0 to 1"),
    ],
)
def test_errors(tmp_path: Path, confidence: Any, correct: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_reliability({"m": (confidence, correct)}, tmp_path / "reliability.png")


def test_no_model_and_no_bins(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"curves is empty"):
        plot_reliability({}, tmp_path / "reliability.png")
    with pytest.raises(ValueError, match=r"num_bins is 0, expected at least 1"):
        reliability_bins([0.5], np.array([True]), 0)
