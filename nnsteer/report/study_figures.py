"""All figures of a study; here those that need no grid."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nnsteer.report import charts
from nnsteer.report.charts import DASHED, crosses, dot, legend, looks, named, panel, percent
from nnsteer.report.grid_figures import grid_sections, varied
from nnsteer.report.look import CYCLE, GREY, MARKERS
from nnsteer.report.results import Family, Results, condition, wanted
from nnsteer.report.section import Picture, Section, file_name


def figures(results: Results) -> Iterator[Section]:
    """Every figure that the study has the numbers for, under its heading, with how it is read."""
    if results.study.get("recommend"):
        caption = "Effect against drift, with 95 % intervals."
        note = f"Right of the dashed line the drift is too large. Ringed: {results.best or 'none'}."
        shown = [Picture("trade-off", caption, partial(trade_off, results))]
        yield Section("Effect and drift", [note], figures=shown)
    if "strength" not in varied(results.grid):
        note = "Dashed, with its band: the baseline. Hollow: the variant's random control."
        shown = []
        for family in results.families.values():
            name = file_name("variants", family.measure, family.prompts)
            draw = partial(variants, results, family)
            shown.append(Picture(name, f"{family.title} by variant.", draw))
        yield Section("Variants", [f"95 % intervals. {note}"], figures=shown)
    yield from grid_sections(results)
    shown = []
    for name, point in results.conditions.items():
        file = file_name("condition", name)
        shown.append(Picture(f"{file}-scores", f"Scores of {name}.", partial(scores, name, point)))
        caption = f"ROC curve of {name}: how often it fires on either side at every threshold."
        shown.append(Picture(f"{file}-roc", caption, partial(roc, name, point)))
    note = "the threshold; in the ROC curve it is the dot, with the 95 % intervals of both rates"
    yield Section("Scores of conditions", [f"On the test prompts. Dashed: {note}."], figures=shown)
    shown, layer = [], shown_layer(results)
    for name, plane in results.planes.items():
        file, draw = file_name("activations", name), partial(activations, name, plane, layer)
        shown.append(Picture(file, f"A dot for each text of {name}.", draw))
    texts = f"The texts that a direction was fitted on, behind block {layer}"
    note = f"{texts}, along their first two principal components."
    yield Section("Activations", [note], figures=shown)


def shown_layer(results: Results) -> str:
    """Where activations are shown: at the middle one of the layers that the recommended variant
    steers, or of the model's."""
    layers = [layer for plane in results.planes.values() for layer in plane["layers"]] or [""]
    if results.best and "layer" in results.grid[results.best]:
        layers = str(results.grid[results.best]["layer"]).split("-")
    return layers[len(layers) // 2]


def trade_off(results: Results) -> Figure:
    """Every variant by its drift and its effect, coloured by the first axis other than strength
    that has a few values."""
    (effect, drift), limit = wanted(results), results.study["recommend"]["limit"]
    figure, axes = panel(3.5)

    def draw(names: list[str], **look: Any) -> None:
        crosses(axes, [drift.cells[v] for v in names], [effect.cells[v] for v in names], **look)

    controls = list(results.study["controls"].values())
    draw(controls, color=GREY, marker="x", markersize=4, label="random controls")
    few = {axis: own for axis, own in varied(results.grid).items() if len(own) <= len(CYCLE)}
    axis = next((axis for axis in few if axis != "strength"), None)
    for level, look in looks(few[axis] if axis else [None]):
        names = [v for v, place in results.grid.items() if not axis or place.get(axis) == level]
        draw(names, label=f"{axis} {level}" if axis else "variants", **look | {"markersize": 5})
    baseline = results.study["baseline"]
    draw([baseline], color="black", marker="*", markersize=9, label="baseline")
    if best := results.best:
        x, y = drift.cells[best]["value"], effect.cells[best]["value"]
        axes.plot(x, y, "o", color="black", markersize=13, mfc="none", label="recommended")
    axes.axvline(limit, **DASHED, label="limit")
    drifts = [drift.cells[v]["value"] or 0 for v in results.grid]
    if 0 < 10 * limit < max(drifts, default=0):
        # straight up to the limit, then by factors of ten
        axes.set_xscale("symlog", linthresh=limit)
    axes.set(xlabel=drift.title, ylabel=effect.title)
    sides = ((drift, axes.xaxis), (effect, axes.yaxis))
    percent(*(side for family, side in sides if family.binary))
    return legend(figure)


def variants(results: Results, family: Family) -> Figure:
    """A row for each variant, its name above it, so that long names have room."""
    names, controls = list(results.grid), results.study["controls"]
    figure, axes = panel(0.8 + 0.36 * len(names))
    for row, name in enumerate(names):
        if name in controls:
            dot(axes, row, family.cells[controls[name]], color=GREY, mfc="white")
        dot(axes, row, family.cells[name], color=CYCLE[0])
    named(axes, names, above=True)
    baseline = family.cells[results.study["baseline"]]
    if baseline["low"] is not None:
        axes.axvspan(baseline["low"], baseline["high"], color="black", alpha=0.08, linewidth=0)
        axes.axvline(baseline["value"], **DASHED)
    axes.set(xlabel=family.title)
    if family.binary:
        axes.set_xlim(-0.02, 1.02)
        percent(axes.xaxis)
    return figure


def scores(name: str, point: dict) -> Figure:
    """A histogram of a condition's scores on either side of the test prompts."""
    figure, axes = panel(2.8)
    sides = {point[side]: point["scores"]["test"][side] for side in ("positive", "negative")}
    charts.histogram(axes, sides, point["threshold"], (CYCLE[1], CYCLE[0]), edgecolor="white")
    axes.set(xlabel=f"{point['score']} at {point['site']}", ylabel="prompts")
    axes.set(title=f"{name}, fires {point['fires_when']}")
    return legend(figure)


def roc(name: str, point: dict) -> Figure:
    """True against false alarms on the test prompts, for every threshold."""
    figure, axes = panel(3.2)
    sign = 1 if point["fires_when"] == "above" else -1
    sides = point["scores"]["test"]
    negative, positive = (sign * np.array(sides[side]) for side in ("negative", "positive"))
    cuts = [np.inf, *np.unique([*positive, *negative])[::-1]]
    false, true = ([(side >= cut).mean() for cut in cuts] for side in (negative, positive))
    axes.plot(false, true, color=CYCLE[0], drawstyle="steps-post")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    rates = condition(point, "test")["fires"]
    x, y = [rates["negative"]], [rates["positive"]]
    crosses(axes, x, y, color=CYCLE[1], marker="o", markersize=6)
    axes.set(xlabel=f"fires on {point['negative']}", ylabel=f"fires on {point['positive']}")
    axes.set(title=name, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    percent(axes.xaxis, axes.yaxis)
    return figure


def activations(name: str, plane: dict, layer: str) -> Figure:
    """A dot for each text, a colour and shape for each side."""
    figure, axes = panel(3.3)
    points, labels = np.array(plane["layers"][layer]["points"]), np.array(plane["labels"])
    sides = dict.fromkeys(plane["labels"])
    for side, colour, marker in zip(sides, (CYCLE[1], CYCLE[0]), MARKERS, strict=False):
        x, y = points[labels == side].T
        look: dict[str, Any] = {"color": colour, "marker": marker, "label": str(side)}
        axes.scatter(x, y, s=12, alpha=0.6, linewidth=0, **look)
    shares = [f"{100 * share:.0f} % of the variance" for share in plane["layers"][layer]["shares"]]
    axes.set(xlabel=f"first component, {shares[0]}", ylabel=f"second component, {shares[1]}")
    axes.set(title=f"{name}, block {layer}, tokens: {plane['read']}")
    return legend(figure)
