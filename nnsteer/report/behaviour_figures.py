"""The figures of a behaviours run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from nnsteer.folder import Folder
from nnsteer.report.look import CYCLE, GREY, MARKERS, plain
from nnsteer.report.pictures import WIDTH, Picture, file_name

POINTS = PercentFormatter(1.0)
SHIFT: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}
LOST = {"collapsed": "MC", "faulty": "F"}


def pictures(folder: Folder, summary: dict) -> Iterator[Picture]:
    """Every figure, in the page's order."""
    names, site = list(summary["alone"]), f"block_out[{summary['layer']}]"
    limit = folder.read_json("config.json")["settings"]["max_faulty"]
    note = "95 % Wilson intervals on the test split. Hollow: random directions of the same length."
    yield Picture("alone", "Each alone", note, "Each behaviour under its own direction", partial(alone, summary["alone"]))
    note = "Change of the matching score on the test split, in points: each row a way to steer, each column a behaviour."
    for name, shows in (("others", "Each direction on every behaviour"), ("together", "All together on every behaviour")):
        yield Picture(name, "On all behaviours", note, shows, partial(changes, summary[name], names))
    note = "Directions that are not orthogonal can be expected to interfere: whether they did, on the test split."
    make = partial(cosines, summary["cosines"][site], names, site)
    yield Picture("cosines", "Interference", note, f"Cosines of the directions at {site}", make)
    make = partial(interference, summary["interference"])
    yield Picture("interference", "Interference", note, "Cosine, and effect on the other behaviours", make)
    note = "Every direction at its own layer, times one scalar. Hollow: it no longer chooses (mode collapse, faulty answers)."
    points = folder.read_json("sweep.json")["points"]
    make = partial(sweep, points, names, limit)
    yield Picture("sweep", "Simultaneous steering", note, "Matching score on the tune split", make)
    make = partial(tax, points, summary["text"])
    yield Picture("tax", "Simultaneous steering", note, "Alignment tax: top-1 accuracy on general text", make)
    note = (
        "Matching score on the tune split, %. MC: mode collapse; F: faulty answers; empty: left out after them. Framed: chosen."
    )
    for name in names:
        own = [cell for cell in folder.read_json("grid.json")["cells"] if cell["behaviour"] == name]
        make = partial(grid, name, own, summary["alone"][name], limit)
        yield Picture(file_name("grid", name), "The grid", note, f"{name} by layer and coefficient", make)


def alone(behaviours: Mapping[str, dict]) -> Figure:
    """A row for each behaviour: subtracted, unsteered, added; random directions beside them."""
    figure = Figure(figsize=(WIDTH, 0.9 + 0.5 * len(behaviours)), layout="constrained")
    axes = figure.subplots()
    looks = {"-": (CYCLE[0], "v", "subtracted"), "baseline": ("black", "o", "unsteered"), "+": (CYCLE[1], "^", "added")}
    for row, own in enumerate(behaviours.values()):
        for offset, (way, (colour, marker, label)) in zip((0.14, 0, -0.14), looks.items(), strict=True):
            cell = own["baseline"] if way == "baseline" else own[way]["test"]
            look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 5}
            axes.errorbar(cell["rate"], row + offset, xerr=reach(cell), elinewidth=1, label=None if row else label, **look)
            if way != "baseline":
                axes.plot(own[way]["random"]["rate"], row + offset, fillstyle="none", **look)
    axes.set_yticks(range(len(behaviours)), list(behaviours))
    axes.invert_yaxis()
    axes.set(xlim=(-0.03, 1.03), xlabel="matching score")
    axes.xaxis.set_major_formatter(POINTS)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return plain(figure, axes)


def reach(cell: Mapping[str, float]) -> np.ndarray:
    """The lengths of an interval's arms, [2, 1]."""
    return np.abs([[cell["rate"] - cell["low"]], [cell["high"] - cell["rate"]]])


def changes(ways: Mapping[str, Mapping[str, dict]], names: Sequence[str]) -> Figure:
    """Points gained or lost by each way to steer on each behaviour, and the marks of a model that no longer chooses."""
    table = np.array([[(own[name]["against_baseline"] or {"value": 0})["value"] for name in names] for own in ways.values()])
    figure = Figure(figsize=(WIDTH, 1.3 + 0.24 * len(ways)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(table, aspect="auto", **SHIFT)
    for i, own in enumerate(ways.values()):
        for j, name in enumerate(names):
            lost = "MC" if own[name]["collapsed"] else "F" if own[name]["too_faulty"] else ""
            write(axes, i, j, f"{100 * table[i, j]:+.0f}{lost and ' ' + lost}", abs(table[i, j]) > 0.6)
    labels(axes, list(ways), names)
    return figure


def write(axes: Axes, row: int, column: int, text: str, dark: bool) -> None:
    """A value in its cell."""
    axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color="white" if dark else "black")


def labels(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Names beside a matrix and above it."""
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="left")
    axes.xaxis.tick_top()


def cosines(matrix: Sequence[Sequence[float]], names: Sequence[str], site: str) -> Figure:
    """The cosines of the directions at one site."""
    figure = Figure(figsize=(WIDTH, 1.1 + 0.36 * len(names)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(matrix, aspect="auto", **SHIFT)
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            write(axes, i, j, f"{value:.2f}", abs(value) > 0.6)
    labels(axes, names, names)
    axes.set_xlabel(f"cosine at {site}")
    figure.colorbar(image, ax=axes, fraction=0.05)
    return figure


def interference(found: dict) -> Figure:
    """Each direction's effect on each other behaviour against the cosine with that behaviour's direction."""
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(pair["steered"] for pair in found["pairs"]))
    for name, colour, marker in zip(names, CYCLE * 9, MARKERS * 9, strict=False):
        own = [pair for pair in found["pairs"] if pair["steered"] == name]
        x, y = ([pair[part] for pair in own] for part in ("cosine", "moved"))
        axes.plot(x, y, marker, color=colour, markersize=4, label=f"{name} steered")
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.axvline(0, color=GREY, linewidth=0.8)
    rank = "" if found["spearman"] is None else f"Spearman's rank correlation {found['spearman']:.2f}"
    axes.set(xlabel="cosine of what is added with the other's direction", ylabel="change of the other's score", title=rank)
    axes.yaxis.set_major_formatter(POINTS)
    if found["pairs"]:
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return plain(figure, axes)


def sweep(points: Sequence[dict], names: Sequence[str], limit: float) -> Figure:
    """A line for each behaviour over the scalars."""
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    axes = figure.subplots()
    x = [point["scalar"] for point in points]
    for name, colour, marker in zip(names, CYCLE * 9, MARKERS * 9, strict=False):
        own = [point["behaviours"][name] for point in points]
        look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4}
        axes.plot(x, [one["score"] for one in own], linewidth=1, label=name, **look)
        lost = [(s, one["score"]) for s, one in zip(x, own, strict=True) if gone(one, limit)]
        axes.plot(*zip(*lost, strict=True), mfc="white", linestyle="none", **look) if lost else None
    axes.set(xlabel="scalar", ylabel="matching score", ylim=(-0.03, 1.03))
    axes.yaxis.set_major_formatter(POINTS)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return plain(figure, axes)


def gone(found: Mapping[str, Any], limit: float) -> str:
    """The paper's mark for a model that no longer chooses; empty where it does."""
    return LOST["collapsed"] if found["collapsed"] else LOST["faulty"] if found["faulty"] > limit else ""


def tax(points: Sequence[dict], text: Mapping[str, dict]) -> Figure:
    """Top-1 accuracy on general text over the scalars, with its band."""
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    axes = figure.subplots()
    known = [(point["scalar"], text[f"simultaneous {point['scalar']:g}"]) for point in points]
    known = [(scalar, cell) for scalar, cell in known if cell["low"] is not None]
    x = [scalar for scalar, _ in known]
    axes.plot(x, [cell["rate"] for _, cell in known], color=CYCLE[0], marker="o", markersize=4)
    low, high = ([cell[end] for _, cell in known] for end in ("low", "high"))
    axes.fill_between(x, low, high, color=CYCLE[0], alpha=0.15, linewidth=0)
    axes.set(xlabel="scalar", ylabel="top-1 on general text", ylim=(0, None))
    axes.yaxis.set_major_formatter(POINTS)
    return plain(figure, axes)


def grid(name: str, cells: Sequence[dict], ways: Mapping[str, dict], limit: float) -> Figure:
    """Layers down, coefficients across."""
    layers, sizes = (sorted({cell[part] for cell in cells}) for part in ("layer", "coefficient"))
    table = np.full((len(layers), len(sizes)), np.nan)
    figure = Figure(figsize=(WIDTH, 1.1 + 0.28 * len(layers)), layout="constrained")
    axes = figure.subplots()
    for cell in cells:
        table[layers.index(cell["layer"]), sizes.index(cell["coefficient"])] = cell["found"]["score"]
    axes.imshow(table, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for cell in cells:
        row, column = layers.index(cell["layer"]), sizes.index(cell["coefficient"])
        write(axes, row, column, gone(cell["found"], limit) or f"{100 * table[row, column]:.0f}", table[row, column] < 0.5)
    for sign in "+-":
        spot = sizes.index(ways[sign]["coefficient"]), layers.index(ways[sign]["layer"])
        axes.plot(*spot, "s", markersize=13, fillstyle="none", color=CYCLE[1], markeredgewidth=1.6)
    axes.set_xticks(range(len(sizes)), [f"{size:g}" for size in sizes], rotation=90)
    axes.set_yticks(range(len(layers)), layers)
    axes.set(xlabel="coefficient", ylabel="layer", title=name)
    return figure
