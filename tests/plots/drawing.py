"""What the tests of figures share: the figure that was saved, and whether the file shows anything."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

NAMES = ["softmax", "resnet18_cifar kappa=60 (fixed)", "ls", "kappa=10", "resnet18_cifar 2 x kappa* (fixed)", "adacos"]


class Drawn(list[Figure]):
    """Every figure that was saved, in order."""

    @property
    def axes(self) -> list[Axes]:
        return [axis for axis in self[-1].axes if axis.get_visible()]

    @property
    def title(self) -> str:
        return self[-1].get_suptitle()

    def legend(self, axis: int | None = None) -> list[str]:
        """Return the entries of the figure's legend, or of an axis'."""
        legend = self[-1].legends[0] if axis is None else self.axes[axis].get_legend()
        return [text.get_text() for text in legend.get_texts()]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    figures, savefig = Drawn(), Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), savefig(self, *a, **k))[1])
    return figures


def check_file(path: Path, output: Path, width: int = 1001) -> None:
    """Assert that the file is a PNG of that width, has ink in every quarter, and that nothing else is left."""
    assert path == output
    assert [each.name for each in output.parent.iterdir()] == [output.name]
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert abs(image.width - width) <= 1
        pixels = np.asarray(image.convert("L"))
    middle, centre = pixels.shape[0] // 2, pixels.shape[1] // 2
    quarters = [pixels[:middle, :centre], pixels[:middle, centre:], pixels[middle:, :centre], pixels[middle:, centre:]]
    assert all((quarter < 128).mean() > 0.001 for quarter in quarters)


def check_inside(figure: Figure) -> None:
    """Assert that no title, label or legend is cut by the figure's edge, and that no two of them overlap."""
    width, height = figure.get_size_inches() * figure.dpi
    visible = [axis for axis in figure.axes if axis.get_visible()]
    texts = [text for axis in visible for text in (axis.title, axis._left_title, axis.xaxis.label, axis.yaxis.label)]
    texts += [figure._suptitle] if figure.get_suptitle() else []
    shown = [*filter(Text.get_text, texts), *figure.legends, *filter(None, (axis.get_legend() for axis in visible))]
    boxes = [each.get_window_extent() for each in shown]
    for each, box in zip(shown, boxes, strict=True):
        assert sum(box.overlaps(other) for other in boxes) == 1, each
        assert box.x0 > -1, each
        assert box.y0 > -1, each
        assert box.x1 < width + 1, each
        assert box.y1 < height + 1, each
