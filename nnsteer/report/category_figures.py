"""The figures of a categories run, experiment by experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nnsteer.report.category_numbers import curve
from nnsteer.report.charts import dot, histogram, legend, looks, named, panel, panels, percent
from nnsteer.report.look import CYCLE, GREY
from nnsteer.texts.refusal import SIDES

Facts = Mapping[str, Any]
Shares = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Refused shares by variant, set and category."""


def quality(conditions: Mapping[str, Facts]) -> Figure:
    """F1 on the test split with its interval, and on the tune split."""
    figure, axes = panel(0.9 + 0.3 * len(conditions))
    for row, facts in enumerate(conditions.values()):
        tune = facts["f1"]["tune"]["value"]
        dot(axes, row, facts["f1"]["test"], color=CYCLE[0], markersize=5, label="test")
        axes.plot(tune, row, "D", color=GREY, mfc="white", markersize=5, label="tune")
    named(axes, list(conditions))
    axes.set(xlim=(None, 1.01), xlabel="F1")
    return legend(figure, 2)


def histograms(points: Mapping[str, Facts]) -> Figure:
    """A panel for each category: its own test prompts' scores, the other seen ones', and the unseen
    ones'."""
    rows = -(-len(points) // 2)
    figure, grid = panels(0.5 + 1.4 * rows, rows, 2)
    for axes in grid.flat[len(points) :]:
        axes.set_axis_off()
    for axes, (target, point) in zip(grid.flat, points.items(), strict=False):
        groups: dict[str, list[float]] = {"others": [], "unseen": [], "its own": []}
        for group, scores in point["scores"]["test"].items():
            other = "others" if group in point["others"] else "unseen"
            groups["its own" if group == target else other] += scores
        look: Facts = {"density": True, "histtype": "step", "alpha": 1}
        histogram(axes, groups, point["threshold"], (CYCLE[0], GREY, CYCLE[1]), **look)
        axes.set(title=target, yticks=[], xlabel="score")
        axes.tick_params(labelsize=7)
    return legend(figure, 4)


def heat(shares: Shares, variants: Sequence[str], sides: Sequence[str]) -> Figure:
    """Refused shares in percent: a row for each variant, its name above it, a column for each
    category of the sets. A variant that was not asked on the first set is left out."""
    names = [name for name in dict.fromkeys(variants) if sides[0] in shares.get(name, {})]
    columns = [(side, kind) for side in sides for kind in shares[names[0]].get(side, {})]
    figure, axes = panel(1.7 + 0.48 * len(names))
    values = np.array([[value(shares[name], *place) for place in columns] for name in names])
    edges = np.arange(len(columns) + 1), np.arange(len(names) + 1)
    image = axes.pcolormesh(*edges, values, cmap="Reds", vmin=0, vmax=1)
    for i, name in enumerate(names):
        axes.fill_between([0, len(columns)], i, i + 0.45, color="white", linewidth=0)
        size = min(8, 440 / len(name))
        axes.text(0, i + 0.24, name, va="center", fontsize=size, in_layout=False)
        for j, share in enumerate(values[i]):
            if not np.isnan(share):
                look: Facts = {"ha": "center", "va": "center", "fontsize": 7}
                shade = "white" if share > 0.6 else "black"
                axes.text(j + 0.5, i + 0.72, f"{100 * share:.0f}", color=shade, **look)
    kinds = [kind for _, kind in columns]
    axes.set_xticks(np.arange(len(columns)) + 0.5, kinds, rotation=45, ha="right")
    for label, (side, _) in zip(axes.get_xticklabels(), columns, strict=True):
        label.set_fontstyle("italic" if side == "unseen" else "normal")
    axes.set(ylim=(len(names), 0), yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    look = {"fraction": 0.04, "aspect": 40, "location": "top", "label": "refused"}
    percent(figure.colorbar(image, ax=axes, **look).ax.xaxis)
    return figure


def value(shares: Mapping[str, Mapping[str, Facts]], side: str, kind: str) -> float:
    """One of a variant's shares; NaN where it was not asked."""
    return shares[side][kind]["value"] if kind in shares.get(side, {}) else np.nan


def scatter(effects: Facts, experiment: str) -> Figure:
    """Effect against distance: a dot for each rule and each category that it is not about; large,
    the rule's means."""
    figure, axes = panel(3.2)
    for target, look in looks(list(effects["means"])):
        points = [point for point in effects["points"] if point["target"] == target]
        x, y = ([point[key] for point in points] for key in ("distance", "effect"))
        axes.plot(x, y, linestyle="none", alpha=0.5, label=target, **look)
        mean, large = effects["means"][target], {"markeredgecolor": "black", "markersize": 9}
        axes.plot(mean["distance"], mean["effect"], **look | large)
    title = experiment
    if r := effects["correlation"]:
        title += f": r = {r['r']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
    axes.set(xlabel="mean cosine distance", ylabel="more refused than unsteered", title=title)
    percent(axes.yaxis)
    return legend(figure)


def saturation(examples: Facts) -> Figure:
    """F1 and refusal on the test split, and their fits."""
    figure, axes = panel(3.2)
    n = [point["n"] for point in examples["points"]]
    grid = np.geomspace(min(n), max(n), 100)
    names = {"f1": "F1"} | {side: f"{side}, refused" for side in SIDES}
    for key, look in looks(list(names)):
        values = [point[key] for point in examples["points"]]
        axes.plot(n, values, linestyle="none", alpha=0.7, label=names[key], **look)
        if fit := examples["fits"].get(key):
            axes.plot(grid, curve(grid, **fit), color=look["color"], linewidth=1)
    axes.set(xscale="log", xlabel="examples a side", ylabel="F1, share refused", ylim=(-0.02, 1.02))
    return legend(figure)


def seconds(examples: Facts) -> Figure:
    """Seconds to read and fit, with the straight line."""
    figure, axes = panel(2.8)
    n, times = ([point[key] for point in examples["points"]] for key in ("n", "seconds"))
    axes.plot(n, times, "o", color=CYCLE[0], markersize=4, alpha=0.7)
    axes.set(xlabel="examples a side", ylabel="seconds", ylim=(0, None))
    if line := examples["time"]:
        start, end = line["intercept"], line["intercept"] + line["slope"] * max(n)
        axes.plot([0, max(n)], [start, end], color=CYCLE[0], linewidth=1)
        axes.set_title(f"{1000 * line['slope']:.2f} s per 1,000 pairs, R² {line['r2']:.3f}")
    return figure


def published(entries: Sequence[Facts]) -> Figure:
    """Harmful and harmless prompts refused under each row's condition, its name above it."""
    figure, axes = panel(0.9 + 0.4 * len(entries))
    for i, entry in enumerate(entries):
        dot(axes, i, entry["harmful"], color=CYCLE[1], fmt="o", markersize=5, label="harmful")
        dot(axes, i, entry["harmless"], color=CYCLE[0], fmt="s", markersize=5, label="harmless")
    named(axes, [entry["name"] for entry in entries], above=True)
    axes.set(xlim=(-0.02, 1.02), xlabel="refused")
    percent(axes.xaxis)
    return legend(figure, 2)
