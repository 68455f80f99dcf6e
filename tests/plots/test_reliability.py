"""The figure shows the bins and the calibration error of the tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cosify.evaluation.calibration_error import calibration, reliability_bins
from cosify.evaluation.split_half import fitted_and_measured, measured_confidence
from cosify.plots import plot_reliability
from tests.evaluation.caches import make_cache
from tests.plots.drawing import NAMES, Drawn, check_file, check_inside


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
        bins = reliability_bins(*map(torch.from_numpy, curve))
        assert " ".join(upper.get_title().split()) == f"{name} ECE {bins.ece:.2%}"
        used = (bins.counts > 0).numpy()
        bars, gaps = (np.array([bar.get_height() for bar in each]) for each in upper.containers)
        assert bars == pytest.approx(bins.accuracy.numpy()[used])
        assert gaps == pytest.approx((bins.accuracy - bins.confidence).abs().numpy()[used])
        assert all(bar.get_hatch() for bar in upper.containers[1])
        assert [bar.get_height() for bar in lower.containers[0]] == pytest.approx(bins.counts.numpy()[used] / 1000)
        assert lower.lines[0].get_xdata()[0] == pytest.approx(curve[0].mean())


def test_the_error_is_that_of_the_table_also_where_float32_is_sure(tmp_path: Path, drawn: Drawn) -> None:
    cache = make_cache(1000, kappa=60.0, spread=1.5)
    plot_reliability({"m": measured_confidence(cache)}, tmp_path / "reliability.png")
    measured = fitted_and_measured(cache.labels)[1]
    logits = torch.cat(list(cache.logits()))[measured]
    table = calibration([logits], torch.from_numpy(cache.labels[measured]))
    assert (cache.max_probability[measured] == 1).mean() > 0.1
    upper, lower = drawn.axes
    assert upper.get_title() == f"m\nECE {table.ece:.2%}"
    sure = (measured_confidence(cache)[0] == 1).mean()
    assert 0 < sure < (cache.max_probability[measured] == 1).mean()
    assert lower.containers[0][-1].get_x() == pytest.approx(1)
    assert lower.containers[0][-1].get_height() == pytest.approx(sure)
    assert lower.get_xlim() == pytest.approx((0, 16 / 15))
    assert drawn.title.endswith("beyond them the samples of confidence 1")


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
        plot_reliability({"m": ([0.5], np.array([True]))}, tmp_path / "reliability.png", num_bins=0)
