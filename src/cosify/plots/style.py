"""What the figures share: how series look, how axes and panels are finished, and how a file is written."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosify.files import written_aside

# Okabe and Ito's colours, safe for the colour-blind, without yellow, too pale on white; the last three are Tol's.
PALETTE = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"),
    *("#56B4E9", "#000000", "#882255", "#999999", "#999933"),
)
LINES: tuple[str | tuple[int, tuple[int, ...]], ...] = (
    "-",
    "--",
    "-.",
    ":",
    (0, (5, 1, 1, 1, 1, 1)),
    (0, (9, 3)),
    (0, (1, 3)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", "p")
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "----", "++++", "oo", "||||", "**")

DPI = 130
WIDTH = 7.7  # inches; 1000 pixels, so that a page of that width shows text at its size
SMALL, MEDIUM = 8.5, 10.0  # points
UNSEEN = "\N{ZERO WIDTH SPACE}"
FIRM_SPACE = "\N{NO-BREAK SPACE}"  # `wrapped` does not break there
UNDER_LABEL = 0.4  # inches from an axis to the end of its label
CHARACTER = 0.066  # inches, mean width at SMALL


@dataclass(frozen=True)
class Look:
    """How one series is drawn: without its colour it still differs from the others.

    Attributes:
        colour: of lines and edges.
        line: matplotlib's line style.
        marker: of points.
        hatch: of bars; the first is plain.
    """

    colour: str
    line: str | tuple[int, tuple[int, ...]]
    marker: str
    hatch: str

    @property
    def bar(self) -> dict[str, Any]:
        """Return keywords for a bar: edge and hatch in the colour, filled paler so that the hatch is seen."""
        from matplotlib.colors import to_rgb

        share = 0.45 if self.hatch else 1.0
        face = tuple(1 - share * (1 - channel) for channel in to_rgb(self.colour))
        return {"facecolor": face, "edgecolor": self.colour, "hatch": self.hatch, "linewidth": 0.8}


def look(index: int) -> Look:
    """Return the look of series `index`; the first ten differ in colour, marker and hatch."""
    return Look(
        colour=PALETTE[index % len(PALETTE)],
        line=LINES[index % len(LINES)],
        marker=MARKERS[index % len(MARKERS)],
        hatch=HATCHES[index % len(HATCHES)],
    )


def new_figure(height: float, width: float = WIDTH) -> Any:
    """Return an empty Figure of its own, without pyplot: no global state, no window, no backend to choose.

    Args:
        height: inches.
        width: inches.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=DPI)


def grid_of(count: int, most: int = 3) -> tuple[int, int]:
    """Return rows and columns for `count` panels, in at most `most` columns and without a lone one at the end."""
    columns = 2 if count == 4 else min(count, most)
    return -(-count // columns), columns


def width_of(columns: int) -> float:
    """Return inches for that many columns: one panel needs no full page."""
    return WIDTH if columns > 1 else 0.72 * WIDTH


def wrapped(text: str, inches: float) -> str:
    """Break a text into lines of at most `inches` at size SMALL, but not at a firm space."""
    return textwrap.fill(text, max(8, int(inches / CHARACTER)))


def label_of(text: str) -> str:
    """Return a label that begins with somebody's name, so that a legend shows it: matplotlib drops "" and "_..."."""
    return UNSEEN + text if text[:1] in ("", "_") else text


def finish(axis: Any, title: str = "", x: str = "", y: str = "", grid: str = "both") -> None:
    """Give an axis its title and labels, a faint grid under the data, and no box."""
    axis.set_title(title, fontsize=MEDIUM)
    axis.set_xlabel(x, fontsize=MEDIUM)
    axis.set_ylabel(y, fontsize=MEDIUM)
    axis.tick_params(labelsize=SMALL)
    axis.set_axisbelow(True)
    axis.grid(alpha=0.3, axis=grid)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def legend_below(figure: Any, handles: Sequence[Any], labels: Sequence[str], **settings: Any) -> None:
    """Put one legend under all panels, in as many columns as the longest label leaves room for."""
    width = figure.get_size_inches()[0]
    labels = [wrapped(label_of(label), width - 0.8) for label in labels]
    longest = max(len(line) for label in labels for line in label.splitlines())
    columns = int(width / (CHARACTER * longest + 0.65))
    # As many in each row: three labels in columns of two leave a gap, not an error.
    rows = -(-len(labels) // max(1, min(columns, len(labels))))
    columns = -(-len(labels) // rows)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=SMALL, **settings)


def legend_under(axis: Any, columns: int = 1) -> None:
    """Put an axis' own legend under its label, where no data are."""
    from matplotlib.transforms import ScaledTranslation

    under_label = axis.transAxes + ScaledTranslation(0, -UNDER_LABEL, axis.figure.dpi_scale_trans)
    axis.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=under_label,
        ncols=columns,
        fontsize=SMALL,
        frameon=False,
    )


def save(figure: Any, output: Path | str) -> Path:
    """Write a PNG aside and rename it: who opens `output` meanwhile sees the old file or the new one.

    Returns:
        The file, of 256 colours, which a chart does not exceed by much: a third of the bytes.
    """
    from PIL import Image

    path = Path(output)
    _show_as_written(figure)
    with written_aside(path) as aside:
        figure.savefig(aside, format="png")
        with Image.open(aside) as image:
            drawn, dpi = image.convert("RGB").quantize(256, dither=Image.Dither.NONE), image.info["dpi"]
        drawn.save(aside, "PNG", optimize=True, dpi=dpi)
    return path


def _show_as_written(figure: Any) -> None:
    """Keep matplotlib from reading names with "$" as formulas; the numbers of logarithmic axes are formulas."""
    from matplotlib.axis import Axis
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatter

    powers = {
        text
        for axis in figure.findobj(Axis)
        for minor, formatter in enumerate((axis.get_major_formatter(), axis.get_minor_formatter()))
        if isinstance(formatter, LogFormatter)
        for text in axis.get_ticklabels(minor=bool(minor))
    }
    for text in figure.findobj(Text):
        text.set_parse_math(text in powers)
