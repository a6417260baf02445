"""The figures of a categories run, experiment by experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nnsteer.report.category_numbers import curve
from nnsteer.report.charts import dot, histogram, legend, looks, named, panel, panels, percent
from nnsteer.report.look import CYCLE, GREY, MARKERS
from nnsteer.texts.refusal import SIDES

ROW = 0.24  # inches of a heat map's row
Shares = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Refused shares by variant, set and category."""


def quality(found: Mapping[str, Mapping[str, Any]]) -> Figure:
    """F1 on the test split with its interval, and on the tune split."""
    figure, axes = panel(0.9 + 0.3 * len(found))
    for row, facts in enumerate(found.values()):
        dot(axes, row, facts["f1"]["test"], color=CYCLE[0], markersize=5, label="test")
        axes.plot(facts["f1"]["tune"]["value"], row, "D", color=GREY, mfc="white", markersize=5, label="tune")
    named(axes, list(found))
    axes.set(xlim=(None, 1.01), xlabel="F1")
    return legend(figure, 2)


def histograms(points: Mapping[str, Any]) -> Figure:
    """A panel for each category: its own test prompts' scores, the other seen ones', and the unseen ones'."""
    rows = -(-len(points) // 2)
    figure, grid = panels(0.5 + 1.2 * rows, rows, 2)
    for axes in grid.flat[len(points) :]:
        axes.set_axis_off()
    for axes, (target, point) in zip(grid.flat, points.items(), strict=False):
        test = point["scores"]["test"]
        groups = {
            "others": [score for group in point["others"] for score in test[group]],
            "unseen": [score for group, own in test.items() if group not in (target, *point["others"]) for score in own],
            "its own": test[target],
        }
        histogram(axes, groups, point["threshold"], (CYCLE[0], GREY, CYCLE[1]), density=True, histtype="step", alpha=1)
        axes.set(title=target, yticks=[])
        axes.tick_params(labelsize=7)
    figure.supxlabel("score", fontsize=9)
    return legend(figure, 4)


def heat(shares: Shares, variants: Sequence[str], sides: Sequence[str]) -> Figure:
    """Refused shares in percent: a row for each variant, its name above it, a column for each category of the sets."""
    variants = [variant for variant in dict.fromkeys(variants) if sides[0] in shares.get(variant, {})]
    columns = [(side, kind) for side in sides for kind in shares[variants[0]].get(side, {})]
    values = np.array([[cell(shares, variant, *column) for column in columns] for variant in variants])
    figure, axes = panel(1.7 + 2 * ROW * len(variants))
    edges = np.arange(len(columns) + 1), np.arange(len(variants) + 1)
    image = axes.pcolormesh(*edges, values, cmap="Reds", vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            shade = "white" if value > 0.6 else "black"
            axes.text(j + 0.5, i + 0.72, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=shade)
    for i, variant in enumerate(variants):
        axes.fill_between([0, len(columns)], i, i + 0.45, color="white", linewidth=0)
        axes.text(0, i + 0.24, variant, va="center", fontsize=min(8, 440 / len(variant)), in_layout=False)
    axes.set_xticks(np.arange(len(columns)) + 0.5, [kind for _, kind in columns], rotation=45, ha="right")
    for label, (side, _) in zip(axes.get_xticklabels(), columns, strict=True):
        label.set_fontstyle("italic" if side == "unseen" else "normal")
    axes.set(ylim=(len(variants), 0), yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, aspect=40, location="top", label="refused")
    percent(bar.ax.xaxis)
    return figure


def cell(shares: Shares, variant: str, side: str, kind: str) -> float:
    """One share; NaN where it was not asked."""
    found = shares[variant].get(side, {}).get(kind)
    return np.nan if found is None else found["value"]


def scatter(found: Mapping[str, Any], experiment: str) -> Figure:
    """Effect against distance: a dot for each rule and each category that it is not about; large, the rule's means."""
    figure, axes = panel(3.2)
    for target, look in looks(list(dict.fromkeys(point["target"] for point in found["points"]))):
        own = [point for point in found["points"] if point["target"] == target]
        x, y = ([point[key] for point in own] for key in ("distance", "effect"))
        axes.plot(x, y, linestyle="none", alpha=0.5, label=target, **look)
        mean = found["means"][target]
        axes.plot(mean["distance"], mean["effect"], markeredgecolor="black", **look | {"markersize": 9})
    r = found["correlation"]
    title = f"{experiment}: r = {r['r']:.2f} [{r['low']:.2f}, {r['high']:.2f}]" if r else experiment
    axes.set(xlabel="mean cosine distance", ylabel="more refused than unsteered", title=title)
    percent(axes.yaxis)
    return legend(figure)


def saturation(found: Mapping[str, Any]) -> Figure:
    """F1 and refusal on the test split, and their fits."""
    figure, axes = panel(3.2)
    n = np.array([point["n"] for point in found["points"]])
    grid = np.geomspace(n.min(), n.max(), 100)
    for key, look in looks(("f1", *SIDES)):
        values = [point[key] for point in found["points"]]
        axes.plot(n, values, linestyle="none", alpha=0.7, label="F1" if key == "f1" else f"{key}, refused", **look)
        if found["fits"].get(key):
            axes.plot(grid, curve(grid, **found["fits"][key]), color=look["color"], linewidth=1)
    axes.set(xscale="log", xlabel="examples a side", ylabel="F1, share refused", ylim=(-0.02, 1.02))
    return legend(figure)


def seconds(found: Mapping[str, Any]) -> Figure:
    """Seconds to read and fit, with the straight line."""
    figure, axes = panel(2.8)
    n = np.array([point["n"] for point in found["points"]])
    axes.plot(n, [point["seconds"] for point in found["points"]], "o", color=CYCLE[0], markersize=4, alpha=0.7)
    axes.set(xlabel="examples a side", ylabel="seconds", ylim=(0, None))
    if line := found["time"]:
        axes.plot([0, n.max()], [line["intercept"], line["intercept"] + line["slope"] * n.max()], color=CYCLE[0], linewidth=1)
        axes.set_title(f"{1000 * line['slope']:.2f} s per 1,000 pairs, R² {line['r2']:.3f}")
    return figure


def published(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Harmful and harmless prompts refused under each row's condition, its name above it."""
    figure, axes = panel(0.9 + 0.4 * len(rows))
    for i, row in enumerate(rows):
        for side, colour, marker in zip(SIDES, (CYCLE[1], CYCLE[0]), MARKERS, strict=False):
            dot(axes, i, row[side], color=colour, fmt=marker, markersize=5, label=side)
    named(axes, [row["name"] for row in rows], above=True)
    axes.set(xlim=(-0.02, 1.02), xlabel="refused")
    percent(axes.xaxis)
    return legend(figure, 2)
