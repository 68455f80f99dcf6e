"""The figure says what metrics.jsonl says."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from cosify.plots import plot_kappa_trace
from cosify.training import RunFolder


def record(epoch: int, kappa: bool = True, **changes: Any) -> dict[str, Any]:
    base = {
        "epoch": epoch,
        "train_loss": 2 / epoch,
        "test_loss": 2.1 / epoch,
        "train_accuracy": 0.9,
        "test_accuracy": 0.8,
    }
    if kappa:
        histogram = [0] * 20
        histogram[9], histogram[10] = 30, 70
        base |= {"kappa_mean": 4.9, "kappa_median": 5.4, "kappa_low_edge": 0.0, "kappa_high_edge": 0.0}
        base |= {"kappa_histogram": histogram}
    return base | changes


def draw(folder: Path, *records: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Figure]:
    drawn: list[Figure] = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), savefig(self, *a, **k))[1])
    run = RunFolder.create(folder, {"script": "TrainArguments", "arguments": {}})
    for each in records:
        run.append_metrics(each)
    return plot_kappa_trace(folder), drawn[0]


def test_curves_are_those_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, figure = draw(tmp_path / "r", record(1), record(2, kappa_mean=5.1), monkeypatch=monkeypatch)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > image.height > 300
    loss, accuracy, kappa = figure.axes[:3]
    assert loss.lines[0].get_ydata().tolist() == [2, 1]
    assert [line.get_label() for line in accuracy.lines] == ["train 90.0%", "test 80.0%"]
    assert kappa.lines[0].get_ydata().tolist() == [4.9, 5.1]
    assert [line.get_label() for line in kappa.lines] == ["mean 5.10", "median 5.40"]
    low, high = kappa.get_ylim()
    assert 2 < low < 3.7
    assert 5.4 < high < 12
    assert kappa.get_title() == "kappa of training samples"


@pytest.mark.slow
def test_panels_under_each_other_read_on_a_narrow_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, figure = draw(tmp_path / "r", record(1), record(2), monkeypatch=monkeypatch)
    path = plot_kappa_trace(tmp_path / "r", tmp_path / "stacked.png", stacked=True)
    with Image.open(path) as image:
        assert image.width <= 650 < image.height
    tops = [axis.get_position().y1 for axis in figure.axes[:3]]
    assert max(tops) - min(tops) < 0.1  # side by side


@pytest.mark.slow
def test_edges_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, figure = draw(tmp_path / "r", record(1, kappa_high_edge=0.18), monkeypatch=monkeypatch)
    assert "(18.0% at high edge of the grid)" in figure.axes[2].get_title()
    fixed = record(1, kappa_low_edge=None, kappa_high_edge=None)
    _, figure = draw(tmp_path / "fixed", fixed, monkeypatch=monkeypatch)
    assert figure.axes[2].get_title() == "kappa of training samples"


@pytest.mark.slow
def test_a_kappa_that_all_samples_share_is_a_line_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    histogram = [0] * 20
    histogram[17] = 100
    fixed = {"kappa_histogram": histogram, "kappa_mean": 60.0, "kappa_median": 60.0}
    _, figure = draw(tmp_path / "fixed", record(1, **fixed), record(2, **fixed), monkeypatch=monkeypatch)
    assert [len(axis.collections) for axis in figure.axes] == [0, 0, 0]
    assert figure.axes[2].lines[0].get_ydata().tolist() == [60, 60]
    _, figure = draw(tmp_path / "ls", record(1), record(2, **fixed), monkeypatch=monkeypatch)
    assert len(figure.axes) == 4
    assert len(figure.axes[2].collections) == 1


def test_a_stock_head_has_no_kappa_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, figure = draw(tmp_path / "r", record(1, kappa=False), monkeypatch=monkeypatch)
    assert [axis.get_title() for axis in figure.axes] == ["cross entropy (nats)", "accuracy"]


def test_a_mean_beyond_the_grid_is_in_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, figure = draw(tmp_path / "r", record(1, kappa_mean=900.0), monkeypatch=monkeypatch)
    assert figure.axes[2].get_ylim()[1] > 900


def test_no_epoch_yet(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(
        ValueError, match=r"metrics.jsonl has no lines, expected one an epoch; train for an epoch first"
    ):
        plot_kappa_trace(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"metrics.jsonl"):
        plot_kappa_trace(tmp_path / "nowhere")


def test_epochs_without_an_evaluation_and_losses_without_an_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = {key: value for key, value in record(1).items() if not key.startswith("test_")}
    _, figure = draw(
        tmp_path / "r", first | {"train_accuracy": None}, record(2, train_accuracy=None), monkeypatch=monkeypatch
    )
    loss, accuracy = figure.axes[:2]
    assert [line.get_xdata().tolist() for line in loss.lines] == [[1, 2], [2]]
    assert [line.get_label() for line in accuracy.lines] == ["test 80.0%"]
