"""All figures of an evaluation."""

from pathlib import Path

import pytest
import torch

from cosify.evaluation import assess
from cosify.plots import draw_figures, figures
from cosify.plots.figures import Subject
from tests.evaluation.caches import make_cache


def test_a_zero_feature_is_left_out_of_the_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    plot = figures.plot_tsne
    monkeypatch.setattr(figures, "plot_tsne", lambda *given, seed: seeds.append(seed) or plot(*given, seed=seed))
    subjects = []
    for name, row in (("a", 3), ("b", 196)):
        whole = make_cache(200, spread=1.5)
        embedding = torch.from_numpy(whole.embedding.copy())
        embedding[row] = 0
        test = make_cache(embedding=embedding, labels=torch.from_numpy(whole.labels))
        subjects.append(Subject(assess(name, test, resamples=100), test, {}, None))
    drawn = draw_figures(subjects, tmp_path, seed=5)
    (caption,) = [each.caption for each in drawn if each.file.name == "tsne.png"]
    assert caption.startswith("198 test images")
    assert seeds == [5]
