"""The figures of a behaviours run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nnsteer.report import charts
from nnsteer.report.charts import SHARE, SHIFT
from nnsteer.report.look import CYCLE, GREY

WAYS: dict[str, dict[str, Any]] = {
    "-": {"color": CYCLE[0], "fmt": "v", "label": "subtracted"},
    "baseline": {"color": "black", "fmt": "o", "label": "unsteered"},
    "+": {"color": CYCLE[1], "fmt": "^", "label": "added"},
}


def alone(behaviours: Mapping[str, dict]) -> Figure:
    """A row for each behaviour: subtracted, unsteered, added; random directions beside them."""
    figure, axes = charts.panel(0.9 + 0.5 * len(behaviours))
    for row, ways in enumerate(behaviours.values()):
        for (way, look), height in zip(WAYS.items(), (row - 0.14, row, row + 0.14), strict=True):
            cell = ways[way] if way == "baseline" else ways[way]["test"]
            charts.dot(axes, height, cell, markersize=5, **look)
            if way != "baseline":
                marker: dict[str, Any] = {"color": look["color"], "marker": look["fmt"]}
                rate = ways[way]["random"]["rate"]
                axes.plot(rate, height, fillstyle="none", markersize=5, **marker)
    charts.named(axes, list(behaviours))
    axes.set(xlim=(-0.03, 1.03), xlabel="matching score")
    charts.percent(axes.xaxis)
    return charts.legend(figure)


def changes(ways: Mapping[str, Mapping[str, dict]], names: Sequence[str]) -> Figure:
    """Points gained or lost by each way to steer on each behaviour, and the marks of a model that
    no longer chooses."""
    table, texts = np.zeros((len(ways), len(names))), [[""] * len(names) for _ in ways]
    for i, j in np.ndindex(table.shape):
        cell = list(ways.values())[i][names[j]]
        if cell["against_baseline"]:
            table[i, j] = cell["against_baseline"]["value"]
        texts[i][j] = f"{100 * table[i, j]:+.0f} {mark(cell['collapsed'], cell['too_faulty'])}"
    figure, axes = charts.panel(1.6 + 0.24 * len(ways))
    bar = charts.heat(axes, table, texts, list(ways), names, **SHIFT)
    bar.set_label("change of the score")
    charts.percent(bar.ax.yaxis)
    charts.slanted(axes)
    return figure


def mark(collapsed: bool, faulty: bool) -> str:
    """The paper's mark for a model that no longer chooses; empty where it does."""
    return "MC" if collapsed else "F" if faulty else ""


def cosines(matrix: Sequence[Sequence[float]], names: Sequence[str]) -> Figure:
    """The cosines of the directions at one site."""
    figure, axes = charts.panel(1.6 + 0.36 * len(names))
    texts = [[f"{value:.2f}" for value in row] for row in matrix]
    charts.heat(axes, np.array(matrix), texts, names, names, **SHIFT).set_label("cosine")
    charts.slanted(axes)
    return figure


def interference(summary: dict) -> Figure:
    """Each direction's effect on each other behaviour against the cosine with that behaviour's
    direction."""
    figure, axes = charts.panel(3.1)
    found = summary["interference"]
    for name, look in charts.looks(list(dict.fromkeys(pair["steered"] for pair in found["pairs"]))):
        points = [(p["cosine"], p["moved"]) for p in found["pairs"] if p["steered"] == name]
        axes.plot(*zip(*points, strict=True), linestyle="none", label=f"{name} steered", **look)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_xlabel("cosine of what is added with the other")
    axes.set_ylabel("change of the other's score")
    if found["spearman"] is not None:
        axes.set_title(f"Spearman's rank correlation {found['spearman']:.2f}")
    charts.percent(axes.yaxis)
    return charts.legend(figure, 2)


def sweep(points: Sequence[dict], names: Sequence[str], limit: float) -> Figure:
    """A line for each behaviour over the scalars; hollow where the model no longer chooses."""
    figure, axes = charts.panel(3.1)
    for name, look in charts.looks(names):
        scores = [(point["scalar"], point["behaviours"][name]) for point in points]
        line = [(scalar, score["matching"]) for scalar, score in scores]
        lost = [(scalar, score["matching"]) for scalar, score in scores if gone(score, limit)]
        axes.plot(*zip(*line, strict=True), linewidth=1, label=name, **look)
        if lost:
            axes.plot(*zip(*lost, strict=True), mfc="white", linestyle="none", **look)
    axes.set(xlabel="scalar", ylabel="matching score", ylim=(-0.03, 1.03))
    charts.percent(axes.yaxis)
    return charts.legend(figure)


def gone(score: Mapping[str, Any], limit: float) -> str:
    """The mark of a score on the tune split."""
    return mark(score["collapsed"], score["faulty"] > limit)


def tax(points: Sequence[dict], text: Mapping[str, dict]) -> Figure:
    """Top-1 accuracy on general text over the scalars, with its band."""
    figure, axes = charts.panel(2.6)
    cells = {point["scalar"]: text[point["variant"]] for point in points}
    known = {scalar: cell for scalar, cell in cells.items() if cell["low"] is not None}
    look: dict[str, Any] = {"color": CYCLE[0], "marker": "o", "markersize": 4}
    charts.line(axes, list(known), list(known.values()), **look)
    axes.set(xlabel="scalar", ylabel="top-1 on general text", ylim=(0, None))
    charts.percent(axes.yaxis)
    return figure


def grid(name: str, cells: Sequence[dict], ways: Mapping[str, dict], limit: float) -> Figure:
    """Layers down, coefficients across; framed, the cells that were chosen."""
    tried = [cell for cell in cells if cell["behaviour"] == name]
    scores = {(cell["layer"], cell["coefficient"]): cell["score"] for cell in tried}
    layers, sizes = (sorted(set(of_axis)) for of_axis in zip(*scores, strict=True))
    table, texts = np.full((len(layers), len(sizes)), np.nan), [[""] * len(sizes) for _ in layers]
    for (layer, size), score in scores.items():
        row, column = layers.index(layer), sizes.index(size)
        table[row, column] = score["matching"]
        texts[row][column] = gone(score, limit) or f"{100 * score['matching']:.0f}"
    figure, axes = charts.panel(1.1 + 0.28 * len(layers))
    bar = charts.heat(axes, table, texts, layers, [f"{size:g}" for size in sizes], **SHARE)
    charts.percent(bar.ax.yaxis)
    frame: dict[str, Any] = {"color": CYCLE[1], "fillstyle": "none", "markeredgewidth": 1.6}
    for way in (ways["-"], ways["+"]):
        spot = sizes.index(way["coefficient"]), layers.index(way["layer"])
        axes.plot(*spot, "s", markersize=13, **frame)
    axes.tick_params(axis="x", rotation=90)
    axes.set(xlabel="coefficient", ylabel="layer", title=name)
    return figure
