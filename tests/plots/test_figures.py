"""All figures of an evaluation."""

import dataclasses
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from cosify.evaluation import assess
from cosify.plots import draw_figures, figures
from cosify.plots.figures import FILES, TSNE_SAMPLES, Subject, first_in_turns
from tests.evaluation.caches import make_cache
from tests.plots.drawing import Drawn


@pytest.mark.slow
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
    assert all(any(fnmatch(file.name, name) for name in FILES) for file in tmp_path.iterdir())


def test_every_class_has_its_share_of_the_map_however_the_rows_are_ordered() -> None:
    by_class = np.repeat(np.arange(10), 1000)  # as in a folder of images
    for labels in (by_class, np.random.default_rng(0).permutation(by_class)):
        rows = first_in_turns(labels, TSNE_SAMPLES)
        assert np.bincount(labels[rows]).tolist() == [100] * 10
        assert (np.diff(rows) > 0).all()
    assert first_in_turns(np.array([3, 3, 3, 7, 7, 3]), 5).tolist() == [0, 1, 2, 3, 4]
    assert first_in_turns(np.array([3, 3, 3, 7]), 9).tolist() == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("names", [("_base", "$x$ of $y"), ("a $\\frac$ b", "_$")])
def test_names_are_drawn_as_they_are_written(names: tuple[str, str], tmp_path: Path, drawn: Drawn) -> None:
    labels = tuple(f"{each} {n}" for n in range(2) for each in names)
    subjects = []
    for name in names:
        test = make_cache(200, spread=1.5)
        test = dataclasses.replace(test, info=dataclasses.replace(test.info, label_names=labels))
        counts = torch.tensor([200, 50, 30, 10])
        ood = {each: make_cache(labels=torch.full((50,), -1)) for each in names}
        assessed = assess(name, test, ood=ood, train_counts=counts, resamples=100)
        subjects.append(Subject(assessed, test, ood, None, train_counts=counts))
    assert len(draw_figures(subjects, tmp_path)) == len(drawn) == 13
    for figure in drawn:
        texts = [text for text in figure.findobj(Text) if text.get_text()]
        said = " ".join(" ".join(text.get_text() for text in texts).split())
        assert all(name in said for name in names), said
        assert sum(label in said for label in labels) in (0, len(labels)), said
        assert not any(text.get_parse_math() for text in texts if "$" in text.get_text() and "math" not in str(text))
