"""All figures of a study; here those that need no grid: variants, trade-off, condition, activations."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nnsteer.report.charts import arms, dot, histogram, legend, looks, named, panel, percent, value
from nnsteer.report.grid_figures import dose_pictures, heat_pictures, varied
from nnsteer.report.look import CYCLE, GREY, MARKERS
from nnsteer.report.results import Cell, Results, by_cell
from nnsteer.report.section import Picture, file_name

FEW = len(CYCLE)


def figures(results: Results, summary: dict) -> dict[str, tuple[str, list[Picture]]]:
    """Every figure that the study has the numbers for, under its heading, with how those of a heading are read."""
    at, best = by_cell(summary["cells"]), (summary["recommended"] or {}).get("variant")
    found: dict[str, tuple[str, list[Picture]]] = {}
    if results.study.get("recommend"):
        note = f"Right of the dashed line the drift is too large. Ringed: {best or 'none'}."
        drawn = [Picture("trade-off", "Effect against drift, with 95 % intervals.", partial(trade_off, results, at, best))]
        found["Effect and drift"] = (note, drawn)
    if "strength" not in varied(results.grid):
        note = "95 % intervals. Dashed, with its band: the baseline. Hollow: the variant's random control."
        found["Variants"] = (
            note,
            [
                Picture(file_name("variants", m, s), f"{m} on {s} by variant.", partial(variants, results, at, m, s))
                for m, s in product(results.measures, results.sets)
            ],
        )
    found["Layer and strength"] = (
        "Starred: differs from the baseline, p < 0.05 (Holm)." + (f" Framed: {best}." if best else ""),
        list(heat_pictures(results, at, best)),
    )
    found["Dose"] = (
        "95 % intervals. Dashed: the baseline." + (" Dotted: the random controls." if results.study["controls"] else ""),
        list(dose_pictures(results, at)),
    )
    note = "On the test prompts. Dashed: the threshold; in the ROC curve it is the dot, with the 95 % intervals of both rates."
    found["Scores of conditions"] = note, [
        picture
        for name, point in results.conditions.items()
        for picture in (
            Picture(file_name("condition", name, "scores"), f"Scores of {name}.", partial(scores, name, point)),
            Picture(
                file_name("condition", name, "roc"), f"ROC curve of {name}: how often it fires on either side at "
                                                     f"every threshold.",
                partial(roc, name, point, summary["conditions"][name]["test"]),
            ),
        )
    ]  # fmt: skip
    layer = shown_layer(results, best)
    note = f"The texts that a direction was fitted on, behind block {layer}, along their first two principal components."
    found["Activations"] = (
        note,
        [
            Picture(file_name("activations", name), f"A dot for each text of {name}.", partial(activations, name, plane, layer))
            for name, plane in results.planes.items()
        ],
    )
    return {title: (note, own) for title, (note, own) in found.items() if own}


def shown_layer(results: Results, best: str | None) -> str:
    """Where activations are shown: at the middle one of the layers that the recommended variant steers, or of the model's."""
    steered = str(results.grid[best]["layer"]).split("-") if best and "layer" in results.grid[best] else []
    layers = steered or [layer for plane in results.planes.values() for layer in plane["layers"]] or [""]
    return layers[len(layers) // 2]


def trade_off(results: Results, at: Mapping[Cell, dict], best: str | None) -> Figure:
    """Every variant by its drift and its effect, coloured by the first axis other than strength that has a few values."""
    wish, binary = results.study["recommend"], results.measures
    figure, axes = panel(3.5)
    axis = next((axis for axis, values in varied(results.grid).items() if axis != "strength" and len(values) <= FEW), None)

    def point(names: list[str], **look: Any) -> None:
        pairs = [(at[v, wish["drift_on"], wish["drift"]], at[v, wish["on"], wish["effect"]]) for v in names]
        known = [pair for pair in pairs if all(cell["low"] is not None for cell in pair)]
        if known:
            x, y = zip(*known, strict=True)
            across, up = ([value(cell) for cell in cells] for cells in (x, y))
            axes.errorbar(across, up, xerr=arms(x), yerr=arms(y), linestyle="none", elinewidth=0.6, **look)

    point([*results.study["controls"].values()], color=GREY, marker="x", markersize=4, label="random controls")
    for level, look in looks(varied(results.grid)[axis] if axis else [None]):
        own = [name for name, axes_of in results.grid.items() if axis is None or axes_of.get(axis) == level]
        point(own, label=f"{axis} {level}" if axis else "variants", **look | {"markersize": 5})
    point([results.study["baseline"]], color="black", marker="*", markersize=9, label="baseline")
    if best:
        x, y = at[best, wish["drift_on"], wish["drift"]]["value"], at[best, wish["on"], wish["effect"]]["value"]
        axes.plot(x, y, "o", color="black", markersize=13, fillstyle="none", label="recommended")
    axes.axvline(wish["limit"], color="black", linestyle="--", linewidth=1, label="limit")
    drifts = [at[name, wish["drift_on"], wish["drift"]]["value"] for name in results.grid]
    if wish["limit"] > 0 and max((d for d in drifts if d is not None), default=0.0) > 10 * wish["limit"]:
        axes.set_xscale("symlog", linthresh=wish["limit"])  # straight up to the limit, then by factors of ten
    axes.set(xlabel=f"{wish['drift']} on {wish['drift_on']}", ylabel=f"{wish['effect']} on {wish['on']}")
    percent(*(side for measure, side in (("drift", axes.xaxis), ("effect", axes.yaxis)) if binary[wish[measure]]))
    return legend(figure)


def variants(results: Results, at: Mapping[Cell, dict], measure: str, prompts: str) -> Figure:
    """A row for each variant, its name above it, so that long names have room."""
    names = list(results.grid)
    figure, axes = panel(0.8 + 0.36 * len(names))
    for row, name in enumerate(names):
        for who, colour, inside in ((results.study["controls"].get(name), GREY, "white"), (name, CYCLE[0], CYCLE[0])):
            if who:
                dot(axes, row, at[who, prompts, measure], color=colour, mfc=inside)
    named(axes, names, above=True)
    baseline = at[results.study["baseline"], prompts, measure]
    if baseline["low"] is not None:
        axes.axvspan(baseline["low"], baseline["high"], color="black", alpha=0.08, linewidth=0)
        axes.axvline(baseline["value"], color="black", linewidth=1, linestyle="--")
    axes.set(xlabel=f"{measure} on {prompts}")
    if results.measures[measure]:
        axes.set_xlim(-0.02, 1.02)
        percent(axes.xaxis)
    return figure


def scores(name: str, point: dict) -> Figure:
    """A histogram of a condition's scores on either side of the test prompts."""
    figure, axes = panel(2.8)
    sides = {point[side]: point["scores"]["test"][side] for side in ("positive", "negative")}
    histogram(axes, sides, point["threshold"], (CYCLE[1], CYCLE[0]), edgecolor="white")
    axes.set(xlabel=f"{point['score']} at {point['site']}", ylabel="prompts", title=f"{name}, fires {point['fires_when']}")
    return legend(figure)


def roc(name: str, point: dict, found: dict) -> Figure:
    """True against false alarms on the test prompts, for every threshold."""
    figure, axes = panel(3.2)
    sign = 1 if point["fires_when"] == "above" else -1
    positive, negative = (sign * np.array(point["scores"]["test"][side]) for side in ("positive", "negative"))
    cuts = np.unique([*positive, *negative])[::-1]
    axes.plot(
        *([0.0, *((side >= cut).mean() for cut in cuts)] for side in (negative, positive)), color=CYCLE[0], drawstyle="steps-post"
    )
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    x, y = found["fires"]["negative"], found["fires"]["positive"]
    axes.errorbar(value(x), value(y), xerr=arms([x]), yerr=arms([y]), color=CYCLE[1], fmt="o", markersize=6, elinewidth=0.6)
    axes.set(xlabel=f"fires on {point['negative']}", ylabel=f"fires on {point['positive']}", title=name)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    percent(axes.xaxis, axes.yaxis)
    return figure


def activations(name: str, plane: dict, layer: str) -> Figure:
    """A dot for each text, a colour and shape for each side."""
    figure, axes = panel(3.3)
    places, labels = np.array(plane["layers"][layer]["points"]), np.array(plane["labels"])
    for label, colour, marker in zip(dict.fromkeys(plane["labels"]), (CYCLE[1], CYCLE[0]), MARKERS, strict=False):
        own = places[labels == label]
        axes.scatter(own[:, 0], own[:, 1], s=12, alpha=0.6, linewidth=0, color=colour, marker=marker, label=str(label))
    first, second = (
        f"{which} component, {100 * share:.0f} % of the variance"
        for which, share in zip(("first", "second"), plane["layers"][layer]["shares"], strict=True)
    )
    axes.set(xlabel=first, ylabel=second, title=f"{name}, block {layer}, tokens: {plane['read']}")
    return legend(figure)
