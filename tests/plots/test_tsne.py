"""A map shows every sample once, in the look of its class."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from cosify.plots import plot_tsne
from cosify.plots.style import PALETTE
from cosify.plots.tsne import perplexity_of, tsne_map
from tests.plots.drawing import NAMES, Drawn, check_file, check_inside

CLASSES = ["airplane", "automobile", "bird"]


def clusters(seed: int, num_samples: int = 30) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    labels = np.arange(num_samples) % 3
    return np.eye(8)[labels] * 5 + rng.normal(size=(num_samples, 8)), labels


@pytest.mark.parametrize(("num_samples", "expected"), [(4, 1), (31, 10), (91, 30), (5000, 30)])
def test_perplexity(num_samples: int, expected: float) -> None:
    assert perplexity_of(num_samples) == expected


def test_map_is_reproducible_and_keeps_clusters_together() -> None:
    rows, labels = clusters(0, 60)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    first, second = tsne_map(rows, seed=3), tsne_map(rows, seed=3)
    assert (first == second).all()
    assert first.shape == (60, 2)
    distances = np.linalg.norm(first[:, None] - first[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert (labels[distances.argmin(axis=1)] == labels).mean() > 0.9


@pytest.mark.parametrize("count", [1, 4])
def test_figure(tmp_path: Path, drawn: Drawn, count: int) -> None:
    data = {name: clusters(seed) for seed, name in enumerate(NAMES[:count])}
    embeddings = {name: rows for name, (rows, _) in data.items()}
    labels = {name: of_rows for name, (_, of_rows) in data.items()}
    output = tmp_path / "tsne.png"
    path = plot_tsne(embeddings, labels, [*CLASSES, "absent"], output)
    check_file(path, output, 1001 if count > 1 else 721)
    check_inside(drawn[-1])
    assert len(drawn.axes) == count
    for name, axis in zip(embeddings, drawn.axes, strict=True):
        assert " ".join(axis.get_title().split()) == f"{name}, N = 30"
        assert [len(each.get_offsets()) for each in axis.collections] == [10, 10, 10]
        assert [to_hex(each.get_facecolor()[0]).upper() for each in axis.collections] == list(PALETTE[:3])
    assert drawn.legend() == CLASSES


def test_the_norm_does_not_matter(tmp_path: Path, drawn: Drawn) -> None:
    rows, labels = clusters(0)
    for factor in (1, np.arange(1, 31)[:, None], 1e200, 1e-200):
        plot_tsne({"a": rows * factor}, {"a": labels}, CLASSES, tmp_path / "tsne.png")
    first, *others = (figure.axes[0].collections[0].get_offsets() for figure in drawn)
    assert all(np.allclose(first, other, atol=0.05 * np.ptp(first)) for other in others)


def test_errors(tmp_path: Path) -> None:
    rows, labels = clusters(0)
    output = tmp_path / "tsne.png"
    with pytest.raises(ValueError, match=r"label_names has 11 classes, expected at most 10, .*; choose some of them"):
        plot_tsne({"a": rows}, {"a": labels}, ["x"] * 11, output)
    with pytest.raises(ValueError, match=r"embeddings is empty"):
        plot_tsne({}, {}, CLASSES, output)
    with pytest.raises(ValueError, match=r"embeddings has \['a'\] and labels has \['b'\], expected the same models"):
        plot_tsne({"a": rows}, {"b": labels}, CLASSES, output)
    with pytest.raises(ValueError, match=r"labels\['a'\] has shape \[29\], expected \[30\], one label per sample"):
        plot_tsne({"a": rows}, {"a": labels[1:]}, CLASSES, output)
    with pytest.raises(ValueError, match=r"embeddings\['a'\] has shape \[3, 8\], expected \[N, d\] with N >= 4"):
        plot_tsne({"a": rows[:3]}, {"a": labels[:3]}, CLASSES, output)
    with pytest.raises(ValueError, match=r"embeddings\['a'\] has 2 zero rows, expected none"):
        plot_tsne({"a": rows * (np.arange(30) > 1)[:, None]}, {"a": labels}, CLASSES, output)
    rows[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"embeddings\['a'\] holds NaN or infinity in 1 of 240 values"):
        plot_tsne({"a": rows}, {"a": labels}, CLASSES, output)
    assert not output.exists()
