"""The figures of an ACE run: refusal against alpha for each method, the scores, and how the layer was chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from nnsteer.report.figures import COLOURS
from nnsteer.report.look import CYCLE, GREY, MARKERS, plain
from nnsteer.report.pictures import WIDTH, Picture, file_name
from nnsteer.texts.refusal import SIDES

CURVES = (
    "Refusal against alpha on harmful and on harmless test prompts: the mean over prompts, and as a band {band}. Dashed: the "
    "other side's mean. Dotted: broken answers. Diamonds: the ideal."
)
BANDS = {  # one answer to a prompt is refused or not: such shares have no quartiles to speak of
    True: (("q25", "q75"), "the 25th to the 75th percentile of the prompts' shares"),
    False: (("low", "high"), "the rate's 95 % interval"),
}


def pictures(summary: dict, layer: dict, names: Mapping[str, str]) -> Iterator[Picture]:
    """Every figure of the page; `names` are the methods' in print."""
    note = "95 % bootstrap intervals over prompts. 1: both curves are the same and run from 0 at alpha 0 to 1 at alpha 1."
    shows = "standardisation scores of the methods"
    yield Picture("standardisation", "Standardisation", note, shows, partial(scores, summary["standardisation"], names))
    ends, band = BANDS[summary["samples"] > 1]
    for method, cells in summary["methods"].items():
        shows = f"refusal against alpha: {names[method]}"
        make = partial(curves, names[method], cells, summary["standardisation"][method], ends)
        yield Picture(file_name("refusal", method), "Refusal against alpha", CURVES.format(band=band), shows, make)
    if "trials" in layer:
        note = "ACE's standardisation score on the tune split, from greedy or sampled answers at alpha 0, 0.5 and 1."
        yield Picture("layer", "The layer", note, "score by layer", partial(layers, layer))
    else:
        note = "Refusal score of harmful tune prompts, the candidate ablated everywhere. Hollow: beyond a limit. Ringed: chosen."
        yield Picture("layer", "The layer", note, "refusal score by layer and position", partial(candidates, layer))


def curves(name: str, cells: Mapping[str, dict], score: dict, ends: tuple[str, str]) -> Figure:
    """Harmful and harmless prompts side by side."""
    figure = Figure(figsize=(WIDTH, 2.3), layout="constrained")
    x, dots = np.array([float(alpha) for alpha in cells]), {"marker": "o", "markersize": 3, "linewidth": 1.4}
    known = {side: [{k: np.nan if v is None else v for k, v in cell[side].items()} for cell in cells.values()] for side in SIDES}
    rates = {side: [cell["rate"] for cell in own] for side, own in known.items()}
    for axes, side, other in zip(figure.subplots(1, 2, sharey=True), SIDES, SIDES[::-1], strict=True):
        low, high = ([cell[end] for cell in known[side]] for end in ends)
        axes.fill_between(x, low, high, color=COLOURS[side], alpha=0.2, linewidth=0)
        axes.plot(x, rates[other], color=COLOURS[other], linestyle="--", linewidth=0.9)
        axes.plot(x, rates[side], color=COLOURS[side], **dots)
        axes.plot(x, [1 - cell["coherence"] for cell in cells.values()], color="black", linestyle=":", linewidth=1)
        axes.plot([0, 1], [0, 1], "D", color="black", markersize=5, fillstyle="none", linestyle="none")
        axes.set(title=f"{side} prompts", xlabel="alpha", ylim=(-0.04, 1.04))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        plain(figure, axes)
    figure.suptitle(f"{name}: {score['score']:.2f} [{score['low']:.2f}, {score['high']:.2f}]", fontsize=9)
    return figure


def scores(found: Mapping[str, dict], names: Mapping[str, str]) -> Figure:
    """A row for each method, the best at the top."""
    order = sorted(found, key=lambda method: found[method]["score"])
    figure = Figure(figsize=(WIDTH, 0.7 + 0.26 * len(order)), layout="constrained")
    axes = figure.subplots()
    for row, method in enumerate(order):
        cell, colour = found[method], CYCLE[1] if method.startswith("ace") else CYCLE[0]
        axes.plot([cell["low"], cell["high"]], [row, row], color=GREY if method.startswith("random") else colour, linewidth=1.4)
        axes.plot(cell["score"], row, "o", color=GREY if method.startswith("random") else colour, markersize=4.5)
    axes.set_yticks(range(len(order)), [names[method] for method in order])
    axes.set(xlim=(-0.02, 1.02), xlabel="standardisation score", ylim=(-0.6, len(order) - 0.4))
    axes.grid(axis="x", linewidth=0.4, alpha=0.6)
    return plain(figure, axes)


def layers(layer: dict) -> Figure:
    """The score at each site that was tried."""
    figure = Figure(figsize=(WIDTH, 2.4), layout="constrained")
    axes = figure.subplots()
    names, found = list(layer["trials"]), [trial["score"] for trial in layer["trials"].values()]
    axes.plot(range(len(names)), found, color=CYCLE[0], marker="o", markersize=4)
    axes.plot(names.index(layer["chosen"]), max(found), "o", color="black", markersize=9, fillstyle="none")
    step = -(-len(names) // 6)
    axes.set_xticks(range(0, len(names), step), names[::step])
    axes.set(ylim=(-0.02, 1.02), ylabel="score")
    return plain(figure, axes)


def candidates(layer: dict) -> Figure:
    """The refusal score of each candidate of Arditi et al.'s selection, a line for each position."""
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes, best = figure.subplots(), layer["selection"]
    for i, position in enumerate(dict.fromkeys(trial["position"] for trial in layer["candidates"])):
        own = sorted((t for t in layer["candidates"] if t["position"] == position), key=lambda trial: trial["layer"])
        colour, x, y = CYCLE[i % len(CYCLE)], [t["layer"] for t in own], [t["refusal"] for t in own]
        within = [t["kl"] <= layer["max_kl"] and t["induce"] >= 0 for t in own]
        axes.plot(x, y, color=colour, linewidth=0.9, label=f"position {position}")
        for fill, keeps in (("full", True), ("none", False)):
            places = [j for j, kept in enumerate(within) if kept is keeps]
            look: dict[str, Any] = {"color": colour, "marker": MARKERS[i % len(MARKERS)], "fillstyle": fill, "markersize": 4}
            axes.plot([x[j] for j in places], [y[j] for j in places], linestyle="none", **look)
    axes.plot(best["layer"], best["refusal"], "o", color="black", markersize=10, fillstyle="none")
    axes.set(xlabel="layer", ylabel="refusal score, ablated")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return plain(figure, axes)
