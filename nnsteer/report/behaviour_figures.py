"""The figures of a behaviours run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nnsteer.report.charts import SHARE, SHIFT, dot, heat, legend, line, looks, named, panel, percent, slanted
from nnsteer.report.look import CYCLE, GREY

LOST = {"collapsed": "MC", "faulty": "F"}


def alone(behaviours: Mapping[str, dict]) -> Figure:
    """A row for each behaviour: subtracted, unsteered, added; random directions beside them."""
    figure, axes = panel(0.9 + 0.5 * len(behaviours))
    ways = {"-": (CYCLE[0], "v", "subtracted"), "baseline": ("black", "o", "unsteered"), "+": (CYCLE[1], "^", "added")}
    for row, own in enumerate(behaviours.values()):
        for offset, (way, (colour, marker, label)) in zip((-0.14, 0, 0.14), ways.items(), strict=True):
            look: dict[str, Any] = {"color": colour, "markersize": 5}
            dot(axes, row + offset, own[way] if way == "baseline" else own[way]["test"], fmt=marker, label=label, **look)
            if way != "baseline":
                axes.plot(own[way]["random"]["rate"], row + offset, marker, fillstyle="none", **look)
    named(axes, list(behaviours))
    axes.set(xlim=(-0.03, 1.03), xlabel="matching score")
    percent(axes.xaxis)
    return legend(figure)


def changes(ways: Mapping[str, Mapping[str, dict]], names: Sequence[str]) -> Figure:
    """Points gained or lost by each way to steer on each behaviour, and the marks of a model that no longer chooses."""
    table = np.array([[(own[name]["against_baseline"] or {"value": 0})["value"] for name in names] for own in ways.values()])
    lost = [["MC" if own[n]["collapsed"] else "F" if own[n]["too_faulty"] else "" for n in names] for own in ways.values()]
    texts = [[f"{100 * table[i, j]:+.0f} {lost[i][j]}" for j in range(len(names))] for i in range(len(ways))]
    figure, axes = panel(1.6 + 0.24 * len(ways))
    bar = heat(axes, table, texts, list(ways), names, **SHIFT)
    bar.set_label("change of the score")
    percent(bar.ax.yaxis)
    slanted(axes)
    return figure


def cosines(matrix: Sequence[Sequence[float]], names: Sequence[str]) -> Figure:
    """The cosines of the directions at one site."""
    figure, axes = panel(1.6 + 0.36 * len(names))
    heat(axes, np.array(matrix), [[f"{value:.2f}" for value in row] for row in matrix], names, names, **SHIFT).set_label("cosine")
    slanted(axes)
    return figure


def interference(found: dict) -> Figure:
    """Each direction's effect on each other behaviour against the cosine with that behaviour's direction."""
    figure, axes = panel(3.1)
    for name, look in looks(list(dict.fromkeys(pair["steered"] for pair in found["pairs"]))):
        own = [pair for pair in found["pairs"] if pair["steered"] == name]
        x, y = ([pair[part] for pair in own] for part in ("cosine", "moved"))
        axes.plot(x, y, linestyle="none", label=f"{name} steered", **look)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.axvline(0, color=GREY, linewidth=0.8)
    rank = "" if found["spearman"] is None else f"Spearman's rank correlation {found['spearman']:.2f}"
    axes.set(xlabel="cosine of what is added with the other's direction", ylabel="change of the other's score", title=rank)
    percent(axes.yaxis)
    return legend(figure, 2)


def sweep(points: Sequence[dict], names: Sequence[str], limit: float) -> Figure:
    """A line for each behaviour over the scalars."""
    figure, axes = panel(3.1)
    x = [point["scalar"] for point in points]
    for name, look in looks(names):
        own = [point["behaviours"][name] for point in points]
        axes.plot(x, [one["score"] for one in own], linewidth=1, label=name, **look)
        lost = [(s, one["score"]) for s, one in zip(x, own, strict=True) if gone(one, limit)]
        axes.plot(*zip(*lost, strict=True), mfc="white", linestyle="none", **look) if lost else None
    axes.set(xlabel="scalar", ylabel="matching score", ylim=(-0.03, 1.03))
    percent(axes.yaxis)
    return legend(figure)


def gone(found: Mapping[str, Any], limit: float) -> str:
    """The paper's mark for a model that no longer chooses; empty where it does."""
    return LOST["collapsed"] if found["collapsed"] else LOST["faulty"] if found["faulty"] > limit else ""


def tax(points: Sequence[dict], text: Mapping[str, dict]) -> Figure:
    """Top-1 accuracy on general text over the scalars, with its band."""
    figure, axes = panel(2.6)
    known = [(point["scalar"], text[f"simultaneous {point['scalar']:g}"]) for point in points]
    known = [(scalar, cell) for scalar, cell in known if cell["low"] is not None]
    line(axes, [scalar for scalar, _ in known], [cell for _, cell in known], color=CYCLE[0], marker="o", markersize=4)
    axes.set(xlabel="scalar", ylabel="top-1 on general text", ylim=(0, None))
    percent(axes.yaxis)
    return figure


def grid(name: str, cells: Sequence[dict], ways: Mapping[str, dict], limit: float) -> Figure:
    """Layers down, coefficients across."""
    layers, sizes = (sorted({cell[part] for cell in cells}) for part in ("layer", "coefficient"))
    table, texts = np.full((len(layers), len(sizes)), np.nan), [[""] * len(sizes) for _ in layers]
    for cell in cells:
        row, column = layers.index(cell["layer"]), sizes.index(cell["coefficient"])
        table[row, column] = cell["found"]["score"]
        texts[row][column] = gone(cell["found"], limit) or f"{100 * table[row, column]:.0f}"
    figure, axes = panel(1.1 + 0.28 * len(layers))
    bar = heat(axes, table, texts, layers, [f"{size:g}" for size in sizes], **SHARE)
    percent(bar.ax.yaxis)
    for sign in "+-":
        spot = sizes.index(ways[sign]["coefficient"]), layers.index(ways[sign]["layer"])
        axes.plot(*spot, "s", markersize=13, fillstyle="none", color=CYCLE[1], markeredgewidth=1.6)
    axes.tick_params(axis="x", rotation=90)
    axes.set(xlabel="coefficient", ylabel="layer", title=name)
    return figure
