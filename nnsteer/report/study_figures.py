"""All figures of a study; here those that need no grid: variants, trade-off, condition, activations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from nnsteer.report.grid_figures import grid_pictures, varied
from nnsteer.report.look import CYCLE, GREY, MARKERS, plain
from nnsteer.report.pictures import WIDTH, Picture, file_name
from nnsteer.report.results import Cell, Results, by_cell

FEW = len(CYCLE)
PAPER = {"color": "white", "alpha": 0.8, "pad": 0.5, "linewidth": 0}  # behind a name that lies on a line


def pictures(results: Results, summary: dict) -> Iterator[Picture]:
    """Every figure that the study has the numbers for."""
    at, best = by_cell(summary["cells"]), (summary["recommended"] or {}).get("variant")
    if results.study.get("recommend"):
        note = f"95 % intervals. Right of the dashed line the drift is too large. Ringed: {best or 'none'}."
        yield Picture("trade-off", "Effect and drift", note, "effect against drift", partial(trade_off, results, at, best))
    if "strength" not in varied(results.grid):
        note = "95 % intervals. Dashed, with its band: the baseline. Hollow: the variant's random control."
        for measure, prompts in product(results.measures, results.sets):
            name, make = file_name("variants", measure, prompts), partial(variants, results, at, measure, prompts)
            yield Picture(name, "Variants", note, f"{measure} on {prompts} by variant", make)
    yield from grid_pictures(results, summary["cells"], best)
    group = "Scores of conditions"
    for name, point in results.conditions.items():
        note = (
            "On the test prompts. Dashed: the threshold. In the ROC curve it is the dot, with the 95 % intervals of both rates."
        )
        curve = partial(roc, name, point, summary["conditions"][name]["test"])
        yield Picture(file_name("condition", name, "scores"), group, note, f"scores of {name}", partial(scores, name, point))
        yield Picture(file_name("condition", name, "roc"), group, note, f"ROC of {name}", curve)
    layer = shown_layer(results, best)
    for name, plane in results.planes.items():
        note = f"The texts that a direction was fitted on, behind block {layer}, along their first two principal components."
        yield Picture(
            file_name("activations", name), "Activations", note, f"texts of {name}", partial(activations, name, plane, layer)
        )


def shown_layer(results: Results, best: str | None) -> str:
    """Where activations are shown: at the middle one of the layers that the recommended variant steers, or of the model's."""
    steered = str(results.grid[best]["layer"]).split("-") if best and "layer" in results.grid[best] else []
    layers = steered or [layer for plane in results.planes.values() for layer in plane["layers"]] or [""]
    return layers[len(layers) // 2]


def trade_off(results: Results, at: Mapping[Cell, dict], best: str | None) -> Figure:
    """Every variant by its drift and its effect, coloured by the first axis other than strength that has a few values."""
    wish, binary = results.study["recommend"], results.measures
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    axes = figure.subplots()
    axis = next((axis for axis, values in varied(results.grid).items() if axis != "strength" and len(values) <= FEW), None)
    values = varied(results.grid)[axis] if axis else [None]

    def point(names: list[str], look: dict[str, Any]) -> None:
        x, y = (
            [at[name, wish[prompts], wish[measure]] for name in names]
            for measure, prompts in (("drift", "drift_on"), ("effect", "on"))
        )
        with_intervals(axes, x, y, look)

    point([*results.study["controls"].values()], {"color": GREY, "fmt": "x", "markersize": 4, "label": "random controls"})
    for value, colour, marker in zip(values, CYCLE, MARKERS, strict=False):
        own = [name for name, axes_of in results.grid.items() if axis is None or axes_of.get(axis) == value]
        label = f"{axis} {value}" if axis else "variants"
        point(own, {"color": colour, "fmt": marker, "markersize": 5, "label": label})
    point([results.study["baseline"]], {"color": "black", "fmt": "*", "markersize": 9, "label": "baseline"})
    if best:
        x, y = at[best, wish["drift_on"], wish["drift"]]["value"], at[best, wish["on"], wish["effect"]]["value"]
        axes.plot(x, y, "o", color="black", markersize=13, fillstyle="none", label="recommended")
    axes.axvline(wish["limit"], color="black", linestyle="--", linewidth=1, label="limit")
    drifts = [at[name, wish["drift_on"], wish["drift"]]["value"] for name in results.grid]
    if wish["limit"] > 0 and max((d for d in drifts if d is not None), default=0.0) > 10 * wish["limit"]:
        axes.set_xscale("symlog", linthresh=wish["limit"])  # straight up to the limit, then by factors of ten
    axes.set(xlabel=f"{wish['drift']} on {wish['drift_on']}", ylabel=f"{wish['effect']} on {wish['on']}")
    for binary_one, side in ((binary[wish["drift"]], axes.xaxis), (binary[wish["effect"]], axes.yaxis)):
        if binary_one:
            side.set_major_formatter(PercentFormatter(1.0))
    figure.legend(loc="outside lower center", ncols=3, frameon=False, handlelength=1.2, columnspacing=1)
    return plain(figure, axes)


def with_intervals(axes: Axes, x: list[dict], y: list[dict], look: dict[str, Any]) -> None:
    """Points with the intervals of both numbers, where both are there."""
    known = [pair for pair in zip(x, y, strict=True) if all(cell["low"] is not None for cell in pair)]
    if known:
        numbers = np.array([[[cell["value"], cell["low"], cell["high"]] for cell in pair] for pair in known])
        places, reach = numbers[:, :, 0].T, np.abs(numbers[:, :, 1:] - numbers[:, :, :1])  # of each point on both axes
        axes.errorbar(places[0], places[1], xerr=reach[:, 0].T, yerr=reach[:, 1].T, linestyle="none", elinewidth=0.6, **look)


def variants(results: Results, at: Mapping[Cell, dict], measure: str, prompts: str) -> Figure:
    """A row for each variant, its name above it, so that long names have room."""
    names = list(results.grid)
    figure = Figure(figsize=(WIDTH, 0.8 + 0.36 * len(names)), layout="constrained")
    axes = figure.subplots()
    for row, name in enumerate(names):
        for who, colour, inside in ((results.study["controls"].get(name), GREY, "white"), (name, CYCLE[0], CYCLE[0])):
            cell = at.get((who, prompts, measure)) if who else None
            if cell and cell["low"] is not None:
                reach = np.abs([[cell["value"] - cell["low"]], [cell["high"] - cell["value"]]])
                axes.errorbar(cell["value"], row, xerr=reach, fmt="o", markersize=4, elinewidth=1.2, color=colour, mfc=inside)
        axes.text(0.01, row - 0.22, name, transform=axes.get_yaxis_transform(), fontsize=8, va="bottom", bbox=PAPER)
    baseline = at[results.study["baseline"], prompts, measure]
    if baseline["low"] is not None:
        axes.axvspan(baseline["low"], baseline["high"], color="black", alpha=0.08, linewidth=0)
        axes.axvline(baseline["value"], color="black", linewidth=1, linestyle="--")
    axes.set(ylim=(len(names) - 0.5, -0.8), yticks=[], title=f"{measure} on {prompts}")
    if results.measures[measure]:
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.spines["left"].set_visible(False)
    return plain(figure, axes)


def scores(name: str, point: dict) -> Figure:
    """A histogram of a condition's scores on either side of the test prompts."""
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = figure.subplots()
    sides = point["scores"]["test"]
    bins = np.histogram_bin_edges([*sides["positive"], *sides["negative"]], bins=30).tolist()
    for side, colour, hatch in (("positive", CYCLE[1], ""), ("negative", CYCLE[0], "///")):
        axes.hist(sides[side], bins=bins, color=colour, alpha=0.6, hatch=hatch, edgecolor="white", label=point[side])
    axes.axvline(point["threshold"], color="black", linestyle="--", linewidth=1, label=f"fires {point['fires_when']}")
    axes.set(xlabel=f"{point['score']} at {point['site']}", ylabel="prompts", title=name)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return plain(figure, axes)


def roc(name: str, point: dict, found: dict) -> Figure:
    """True against false alarms on the test prompts, for every threshold."""
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    sign = 1 if point["fires_when"] == "above" else -1
    positive, negative = (sign * np.array(point["scores"]["test"][side]) for side in ("positive", "negative"))
    cuts = np.unique([*positive, *negative])[::-1]
    rates = [[0.0, *((side >= cut).mean() for cut in cuts)] for side in (negative, positive)]
    axes.plot(*rates, color=CYCLE[0], drawstyle="steps-post")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    with_intervals(
        axes, [found["fires"]["negative"]], [found["fires"]["positive"]], {"color": CYCLE[1], "fmt": "o", "markersize": 6}
    )
    axes.set(xlabel=f"fires on {point['negative']}", ylabel=f"fires on {point['positive']}", title=name)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return plain(figure, axes)


def activations(name: str, plane: dict, layer: str) -> Figure:
    """A dot for each text, a colour and shape for each side."""
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    axes = figure.subplots()
    places, labels = np.array(plane["layers"][layer]["points"]), np.array(plane["labels"])
    for label, colour, marker in zip(dict.fromkeys(plane["labels"]), (CYCLE[1], CYCLE[0]), MARKERS, strict=False):
        own = places[labels == label]
        axes.scatter(own[:, 0], own[:, 1], s=12, alpha=0.6, linewidth=0, color=colour, marker=marker, label=str(label))
    first, second = (
        f"{which} component, {100 * share:.0f} % of the variance"
        for which, share in zip(("first", "second"), plane["layers"][layer]["shares"], strict=True)
    )
    axes.set(xlabel=first, ylabel=second, title=f"{name}, block {layer}, tokens: {plane['read']}")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return plain(figure, axes)
