from pathlib import Path

import pytest
import torch

from cosify.functional import ls_kappa
from cosify.plots import plot_ls_search
from tests import geometry


@pytest.mark.parametrize("start", [0.1, 20.0, 150.0])
def test_the_figure_says_which_kappa_won(start: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding, weight = geometry.clustered(3, 200, 32, seed=1)
    titles: list[str] = []
    monkeypatch.setattr("cosify.plots.ls_search.finish", lambda axis, title, *labels: titles.append(title))
    file = plot_ls_search(embedding[0], weight, start, tmp_path / "search.png")
    assert file.read_bytes().startswith(b"\x89PNG")
    assert f"kappa* = {ls_kappa(embedding[:1], weight).item():.1f} after" in titles[0]


def test_what_is_not_finite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="embedding holds NaN"):
        plot_ls_search(torch.full((4,), torch.nan), torch.randn(6, 4), 5.0, tmp_path / "search.png")
    for start in (torch.nan, -1.0):
        with pytest.raises(ValueError, match=f"kappa is {start}, expected a finite number above 0"):
            plot_ls_search(torch.randn(4), torch.randn(6, 4), start, tmp_path / "search.png")
    with pytest.raises(ValueError, match=r"embedding has shape \[1, 4\], expected \[d\], one sample; index it"):
        plot_ls_search(torch.randn(1, 4), torch.randn(6, 4), 5.0, tmp_path / "search.png")
    assert list(tmp_path.iterdir()) == []
