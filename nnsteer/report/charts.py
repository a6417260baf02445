"""What figures are drawn from: panels, estimates with intervals, heat maps and histograms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from nnsteer.report.look import CYCLE, MARKERS
from nnsteer.report.section import WIDTH

Cell = Mapping[str, Any]
"""An estimate: `value` (or `rate`), `low` and `high`, of which None says that there is none."""
Look = dict[str, Any]
"""Options of matplotlib's."""
Panels = tuple[Figure, np.ndarray]
Ends = tuple[str, str]
Texts = Sequence[Sequence[str]]
Groups = Mapping[str, Sequence[float]]
COLOURS = {"harmful": "#b5483a", "harmless": "#3b6ea5"}
DASHED: Look = {"color": "black", "linestyle": "--", "linewidth": 1}
"""The line of a baseline, a threshold or a limit."""
SHIFT: Look = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}
"""Colours of a change: of cosines, and of rates."""
SHARE: Look = {"cmap": "cividis", "vmin": 0, "vmax": 1}
"""Colours of a rate."""


def panels(height: float, rows: int = 1, columns: int = 1, **sharing: Any) -> Panels:
    """A figure of a column's width, `height` in inches, and its panels, [rows, columns]."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **sharing)


def panel(height: float) -> tuple[Figure, Axes]:
    """A figure of one panel."""
    figure, grid = panels(height)
    return figure, grid[0, 0]


def percent(*axes: Axis) -> None:
    """Shares in percent."""
    for axis in axes:
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def legend(figure: Figure, columns: int = 3) -> Figure:
    """One for all panels, below them: each label once. Returns the figure."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        columns = min(columns, len(handles))
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=columns)
    return figure


def looks(names: Sequence[Any]) -> Iterator[tuple[Any, Look]]:
    """Each name with a colour and a marker of its own."""
    colours: Any = CYCLE
    if len(names) > len(CYCLE):
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(names)))
    for name, colour, marker in zip(names, colours, cycle(MARKERS)):
        yield name, {"color": colour, "marker": marker, "markersize": 4}


def value(cell: Cell) -> float:
    """An estimate's value, NaN where there is none."""
    number = cell["value"] if "value" in cell else cell["rate"]
    return np.nan if number is None else number


def arms(cells: Sequence[Cell]) -> np.ndarray:
    """The lengths of the intervals' arms, [2, cells]; 0 where there is no interval."""
    ends = [[value(c) if c[end] is None else c[end] for c in cells] for end in ("low", "high")]
    return np.abs(np.array(ends) - [value(cell) for cell in cells])


def known(x: Sequence[float], cells: Sequence[Cell]) -> tuple[list[float], list[Cell]]:
    """The points at which there is a value."""
    there = [i for i, cell in enumerate(cells) if not np.isnan(value(cell))]
    return [x[i] for i in there], [cells[i] for i in there]


def dot(axes: Axes, row: float, cell: Cell, **look: Any) -> None:
    """An estimate at a height, with its interval; nothing where there is none."""
    if not np.isnan(value(cell)):
        plain: Look = {"fmt": "o", "markersize": 4, "elinewidth": 1.2}
        axes.errorbar(value(cell), row, xerr=arms([cell]), **plain | look)


def crosses(axes: Axes, across: Sequence[Cell], up: Sequence[Cell], **look: Any) -> None:
    """Estimates against others, with the intervals of both; those alone that have both."""
    pairs = [(x, y) for x, y in zip(across, up, strict=True) if None not in (x["low"], y["low"])]
    if pairs:
        across, up = zip(*pairs, strict=True)
        x, y = list(map(value, across)), list(map(value, up))
        look |= {"linestyle": "none", "elinewidth": 0.6}
        axes.errorbar(x, y, xerr=arms(across), yerr=arms(up), **look)


def line(
    axes: Axes, x: Sequence[float], cells: Sequence[Cell], ends: Ends = ("low", "high"), **look: Any
) -> None:
    """Estimates over x, with the band of their intervals."""
    axes.plot(x, list(map(value, cells)), **{"linewidth": 1.2} | look)
    low, high = (np.array([cell[end] for cell in cells], dtype=float) for end in ends)
    axes.fill_between(x, low, high, color=look["color"], alpha=0.18, linewidth=0)


def named(axes: Axes, names: Sequence[str], *, above: bool = False) -> None:
    """A row for each name, from the top; `above` puts long names over their rows."""
    axes.set_ylim(len(names) - 0.5, -0.8 if above else -0.5)
    if not above:
        axes.set_yticks(range(len(names)), names)
        return
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    look: Look = {"transform": axes.get_yaxis_transform(), "fontsize": 8, "va": "bottom"}
    paper = {"color": "white", "alpha": 0.8, "pad": 0.5, "linewidth": 0}  # over a line behind it
    for row, name in enumerate(names):
        axes.text(0.01, row - 0.2, name, bbox=paper, **look)


def heat(
    axes: Axes, table: np.ndarray, texts: Texts, rows: Sequence, columns: Sequence, **colours: Any
) -> Any:
    """A matrix with its words in the cells and a colour bar; returns the bar, whose axis may be in
    percent."""
    image = axes.imshow(table, aspect="auto", **colours)
    longest = max((len(text) for row in texts for text in row), default=1)
    size = min(8, 48 / len(columns), 180 / (len(columns) * max(1, longest)))  # fits its cell
    look: Look = {"ha": "center", "va": "center", "fontsize": size}
    for (i, j), number in np.ndenumerate(np.asarray(table, dtype=float)):
        red, green, blue, _ = image.cmap(image.norm(number))
        dark = not np.isnan(number) and 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        axes.text(j, i, texts[i][j], color="w" if dark else "k", **look)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.spines[:].set_visible(False)
    return axes.figure.colorbar(image, ax=axes, fraction=0.04)


def slanted(axes: Axes) -> None:
    """Long names below a matrix."""
    axes.tick_params(axis="x", rotation=40)
    for label in axes.get_xticklabels():
        label.set(horizontalalignment="right", rotation_mode="anchor")


def histogram(
    axes: Axes, groups: Groups, threshold: float, colours: Sequence[str], **look: Any
) -> None:
    """How often each group has which score; dashed, the threshold."""
    bins = np.histogram_bin_edges(np.concatenate(list(groups.values())), bins=24).tolist()
    for (label, scores), colour in zip(groups.items(), colours, strict=False):
        if scores:
            axes.hist(scores, bins, color=colour, label=label, **{"alpha": 0.6} | look)
    axes.axvline(threshold, **DASHED, label="threshold")
