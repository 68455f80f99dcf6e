"""The line of an epoch, and when it comes with a warning."""

import logging

import pytest
import torch

from cosify.heads.kappa_statistics import KappaStatistics
from cosify.training.checkpoint import Progress
from cosify.training.progress import epoch_record, log_epoch, warn_about_kappa


def logged(caplog: pytest.LogCaptureFixture, waited: float, seconds: float = 10.0, pipeline: str = "workers") -> str:
    progress = Progress(step=10, sums=[200.0, 300.0, 400.0], seconds=seconds, waited=waited)
    with caplog.at_level(logging.INFO, logger="cosify.training"):
        log_epoch(epoch_record(progress, 2, 0.1, None, counts_correct=True), 5, None, None, pipeline)
    return caplog.text


def test_an_epochs_line_says_images_a_second_alone(caplog: pytest.LogCaptureFixture) -> None:
    text = logged(caplog, waited=1.0)
    assert "epoch 2/5  loss 0.500  train 75.0%  40 images/s" in text
    assert "waits" not in text


def test_waiting_is_warned_of_with_what_the_network_would_do_without(caplog: pytest.LogCaptureFixture) -> None:
    text = logged(caplog, waited=6.0)
    assert "waits for images in 60 % of the time: 40 images/s, about 100 without; raise num_workers" in text
    caplog.clear()
    assert "see the device's load" in logged(caplog, waited=6.0, pipeline="device")


def test_a_short_epoch_is_not_judged(caplog: pytest.LogCaptureFixture) -> None:
    assert "waits" not in logged(caplog, waited=3.0, seconds=4.0)


def test_an_epoch_without_counts_has_no_accuracy() -> None:
    progress = Progress(step=1, sums=[2.0, 0.0, 4.0], seconds=1.0)
    record = epoch_record(progress, 1, 0.1, None, counts_correct=False)
    assert record["train_accuracy"] is None
    assert record["train_loss"] == 0.5
    assert "kappa_mean" not in record


@pytest.mark.parametrize(("kappa", "edge"), [(200.0, "upper"), (0.01, "lower")])
def test_kappa_is_stuck_at_an_edge_only_where_it_is_searched(
    kappa: float, edge: str, caplog: pytest.LogCaptureFixture
) -> None:
    for searched in (False, True):
        statistics = KappaStatistics(torch.device("cpu"), has_edges=searched)
        statistics.update(torch.full((4,), kappa))
        assert (statistics.edge_shares() is not None) is searched
        summary = statistics.summary()
        assert summary is not None
        assert (summary.low_edge is not None) is (summary.high_edge is not None) is searched
        warn_about_kappa(summary, None)
        assert (f"100 % of kappa lie at the {edge} edge of the search grid" in caplog.text) is searched
