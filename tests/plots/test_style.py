"""Series can be told apart, and a file appears whole or not at all."""

import textwrap
from pathlib import Path

import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from cosify.plots.style import DPI, PALETTE, grid_of, label_of, legend_below, look, new_figure, save, wrapped


def test_ten_series_differ_by_more_than_colour() -> None:
    looks = [look(index) for index in range(10)]
    for attribute in ("colour", "marker", "hatch"):
        assert len({getattr(each, attribute) for each in looks}) == 10
    assert len({each.line for each in looks[:7]}) == 7
    # Beyond that no pair of colour and line returns soon.
    assert len({(each.colour, each.line) for each in map(look, range(70))}) == 70


def test_colours_are_seen_on_white() -> None:
    for colour in PALETTE:
        red, green, blue = to_rgb(colour)
        assert 0.299 * red + 0.587 * green + 0.114 * blue < 0.72


def test_hatched_bars_are_paler_than_their_edge() -> None:
    assert look(0).bar["facecolor"] == pytest.approx(to_rgb(look(0).colour))
    assert look(6).bar["facecolor"] == pytest.approx((0.55, 0.55, 0.55))
    assert look(6).bar["edgecolor"] == "#000000"


@pytest.mark.parametrize(
    ("count", "expected"), [(1, (1, 1)), (2, (1, 2)), (3, (1, 3)), (4, (2, 2)), (5, (2, 3)), (6, (2, 3)), (7, (3, 3))]
)
def test_grid(count: int, expected: tuple[int, int]) -> None:
    assert grid_of(count) == expected


def test_wrapped_keeps_every_word() -> None:
    name = "resnet18_cifar kappa=60 (fixed)"
    assert wrapped(name, 5) == name
    assert wrapped(name, 1).split() == name.split()
    assert all(len(line) <= 15 for line in wrapped(name, 1).splitlines())
    assert textwrap.dedent(wrapped("x" * 20, 0.1)) == "xxxxxxxx\nxxxxxxxx\nxxxx"


def test_a_label_is_in_the_legend_whatever_its_name(tmp_path: Path) -> None:
    figure = new_figure(3)
    axis = figure.subplots()
    for name in ("_base", "", "a"):
        axis.plot([0, 1], label=label_of(name))
    assert len(axis.get_legend_handles_labels()[1]) == 3
    legend_below(figure, axis.get_lines(), ["_base", "", "a"])
    shown = [text.get_text().strip("\N{ZERO WIDTH SPACE}") for text in figure.legends[0].get_texts()]
    assert shown == ["_base", "", "a"]
    save(figure, tmp_path / "a.png")


def test_names_are_no_formulas_and_powers_of_ten_are(tmp_path: Path) -> None:
    figure = new_figure(3)
    axis = figure.subplots()
    axis.plot([1, 1000], [1, 2])
    axis.set_xscale("log")
    axis.set_yticks([1, 2], ["$a$", "$\\frac$"])
    axis.set_title("cost $5 to $10")
    figure.suptitle("$x")
    save(figure, tmp_path / "a.png")
    assert any(text.get_parse_math() for text in axis.get_xticklabels())
    plain = [axis.title, figure._suptitle, *axis.get_yticklabels()]
    assert not any(text.get_parse_math() for text in plain)


def test_a_legend_has_fewer_columns_for_long_names() -> None:
    columns = []
    for length in (5, 31, 80):
        figure = new_figure(3)
        handles = figure.subplots().plot([[0] * 6, [1] * 6])
        legend_below(figure, handles, [str(index).ljust(length, "m") for index in range(6)])
        columns.append(figure.legends[0]._ncols)
    assert columns == [6, 2, 1]


def test_names_that_are_longer_than_a_figure_is_wide_are_broken() -> None:
    figure = new_figure(3, width=3)
    handles = figure.subplots().plot([[0, 0], [1, 1]])
    legend_below(figure, handles, ["yellow lady's slipper, " * 4, "short"])
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width


def test_save_replaces_the_file_only_when_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "figure.png"
    output.write_text("before")

    def fail(self: Figure, path: Path, **_: object) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", fail)
        with pytest.raises(OSError, match="disk full"):
            save(new_figure(2), output)
    assert output.read_text() == "before"
    assert save(new_figure(2, 3), str(output)) == output
    assert output.read_bytes()[16:24] == (3 * DPI).to_bytes(4, "big") + (2 * DPI).to_bytes(4, "big")
    assert [each.name for each in tmp_path.iterdir()] == ["figure.png"]
