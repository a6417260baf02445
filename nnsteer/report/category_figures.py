"""The figures of a categories run, experiment by experiment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from nnsteer.report.category_numbers import curve
from nnsteer.report.category_summary import BASE, COMPLY, RANDOM, REFUSE
from nnsteer.report.look import CYCLE, GREY, MARKERS, plain
from nnsteer.report.pictures import WIDTH, Picture
from nnsteer.texts.refusal import SIDES

ROW = 0.24  # inches of a heat map's row
Shares = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Refused shares by variant, set and category."""


def pictures(summary: Mapping[str, Any], points: Mapping[str, Any]) -> Iterator[Picture]:
    """Every figure, under the heading of its experiment."""
    shares, both = summary["rates"], ("seen", "unseen")

    def rules(experiment: str, key: str = "rule") -> list[str]:
        return [entry[key] for entry in summary[experiment]]

    yield Picture("conditions", "conditions", "", "F1 by category, with 95 % intervals", partial(quality, summary["conditions"]))
    yield Picture("scores", "conditions", "", "scores of the test prompts; dashed, the threshold", partial(histograms, points))
    adding = [BASE, *rules("adding"), REFUSE, RANDOM]
    yield Picture("adding", "adding", "", "refused, %, by rule and category", partial(heat, shares, adding, ("seen",)))
    either = [*rules("either")]
    yield Picture("either", "either", "", "refused, %, by rule and category", partial(heat, shares, either, ("seen",)))
    removing = [BASE, *rules("removing"), COMPLY, RANDOM]
    for side in ("harmful", "seen"):
        if summary["removing"] and side in shares[COMPLY]:
            yield Picture(f"removing-{side}", "removing", "", "refused, %, by rule", partial(heat, shares, removing, (side,)))
    if summary["together"]:
        together = [BASE, *(part["rule"] for entry in summary["together"] for part in entry["parts"]), *rules("together")]
        for side in ("seen", "harmful"):
            yield Picture(f"together-{side}", "together", "", f"refused, %, {side}", partial(heat, shares, together, (side,)))
    inside = [BASE, *(f"if not {domain} then refuse" for domain in rules("constraining", "domain")), REFUSE]
    yield Picture("constraining", "constraining", "", "by rule: refused, %", partial(heat, shares, inside, both))
    told = [f"told: only {domain}" for domain in rules("constraining", "domain")]
    yield Picture("prompting", "constraining", "", "told in words: refused, %", partial(heat, summary["told"], told, both))
    for experiment, found in summary["distance"].items():
        yield Picture(f"distance-{experiment}", "distance", "", experiment, partial(scatter, found, experiment))
    yield Picture("saturation", "saturation", "", "by number of examples", partial(saturation, summary["saturation"]))
    yield Picture("time", "saturation", "", "time to read and fit", partial(seconds, summary["saturation"]))
    if summary["published"]:
        yield Picture("published", "published", "", "refused under each", partial(published, summary["published"]))


def quality(found: Mapping[str, Mapping[str, Any]]) -> Figure:
    """F1 on the test split with its interval, and on the tune split."""
    figure = Figure(figsize=(WIDTH, 0.9 + 0.3 * len(found)), layout="constrained")
    axes = figure.subplots()
    for row, facts in enumerate(found.values()):
        test = facts["f1"]["test"]
        reach = np.abs([[test["value"] - test["low"]], [test["high"] - test["value"]]])
        axes.errorbar(test["value"], row, xerr=reach, fmt="o", color=CYCLE[0], markersize=5, label="test" if row == 0 else None)
        tune = facts["f1"]["tune"]["value"]
        axes.plot(tune, row, "D", color=GREY, mfc="white", markersize=5, label="tune" if row == 0 else None)
    axes.set_yticks(range(len(found)), list(found))
    axes.set(ylim=(len(found) - 0.5, -0.5), xlim=(None, 1.01), xlabel="F1")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return plain(figure, axes)


def histograms(points: Mapping[str, Any]) -> Figure:
    """A panel for each category: its own test prompts' scores, the other seen ones', and the unseen ones'."""
    rows = -(-len(points) // 2)
    figure = Figure(figsize=(WIDTH, 0.5 + 1.1 * rows), layout="constrained")
    panels = figure.subplots(rows, 2, squeeze=False).flatten()
    for axes in panels:
        axes.set_axis_off()
    for axes, (target, point) in zip(panels, points.items(), strict=False):
        axes.set_axis_on()
        test = point["scores"]["test"]
        groups = {
            "others": [score for group in point["others"] for score in test[group]],
            "unseen": [score for group, own in test.items() if group not in (target, *point["others"]) for score in own],
            "its own": test[target],
        }
        bins = np.histogram_bin_edges([score for own in groups.values() for score in own], bins=24).tolist()
        for (label, own), colour in zip(groups.items(), (CYCLE[0], GREY, CYCLE[1]), strict=True):
            if own:
                axes.hist(own, bins=bins, density=True, histtype="step", color=colour, label=label)
        axes.axvline(point["threshold"], color="black", linestyle="--", linewidth=1)
        axes.set(title=target, yticks=[])
        axes.tick_params(labelsize=7)
        plain(figure, axes)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def heat(shares: Shares, variants: Sequence[str], sides: Sequence[str]) -> Figure:
    """Refused shares in percent: a row for each variant, its name above it, a column for each category of the sets."""
    variants = [variant for variant in dict.fromkeys(variants) if sides[0] in shares.get(variant, {})]
    columns = [(side, kind) for side in sides for kind in shares[variants[0]].get(side, {})]
    values = np.array([[cell(shares, variant, *column) for column in columns] for variant in variants])
    figure = Figure(figsize=(WIDTH, 0.9 + 2 * ROW * len(variants)), layout="constrained")
    axes = figure.subplots()
    axes.pcolormesh(np.arange(len(columns) + 1), np.arange(len(variants) + 1) - 0.0, values, cmap="Reds", vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            shade = "white" if value > 0.6 else "black"
            axes.text(j + 0.5, i + 0.72, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=shade)
    for i, variant in enumerate(variants):
        axes.fill_between([0, len(columns)], i, i + 0.45, color="white", linewidth=0)
        axes.text(0, i + 0.24, variant, va="center", fontsize=8)
    axes.set_xticks(np.arange(len(columns)) + 0.5, [kind for _, kind in columns], rotation=45, ha="right")
    for label, (side, _) in zip(axes.get_xticklabels(), columns, strict=True):
        label.set_fontstyle("italic" if side == "unseen" else "normal")
    axes.set(ylim=(len(variants), 0), yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def cell(shares: Shares, variant: str, side: str, kind: str) -> float:
    """One share; NaN where it was not asked."""
    found = shares[variant].get(side, {}).get(kind)
    return np.nan if found is None else found["value"]


def scatter(found: Mapping[str, Any], experiment: str) -> Figure:
    """Effect against distance: a dot for each rule and each category that it is not about; large, the rule's means."""
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    targets = list(dict.fromkeys(point["target"] for point in found["points"]))
    for i, target in enumerate(targets):
        own = [point for point in found["points"] if point["target"] == target]
        colour, marker = CYCLE[i % len(CYCLE)], MARKERS[i % len(MARKERS)]
        x, y = ([point[key] for point in own] for key in ("distance", "effect"))
        axes.plot(x, y, marker, color=colour, markersize=4, alpha=0.5, label=target)
        mean = found["means"][target]
        axes.plot(mean["distance"], mean["effect"], marker, color=colour, markersize=9, markeredgecolor="black")
    r = found["correlation"]
    title = f"{experiment}: r = {r['r']:.2f} [{r['low']:.2f}, {r['high']:.2f}]" if r else experiment
    axes.set(xlabel="mean cosine distance", ylabel="more refused than unsteered", title=title)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return plain(figure, axes)


def saturation(found: Mapping[str, Any]) -> Figure:
    """F1 and refusal on the test split, and their fits."""
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    n = np.array([point["n"] for point in found["points"]])
    grid = np.geomspace(n.min(), n.max(), 100)
    for key, colour, marker in (("f1", CYCLE[0], "o"), ("harmful", CYCLE[1], "s"), ("harmless", CYCLE[2], "D")):
        values = [point[key] for point in found["points"]]
        label = "F1" if key == "f1" else f"{key}, refused"
        axes.plot(n, values, marker, color=colour, markersize=4, alpha=0.7, label=label)
        if found["fits"].get(key):
            axes.plot(grid, curve(grid, **found["fits"][key]), color=colour, linewidth=1)
    axes.set(xscale="log", xlabel="examples a side", ylim=(-0.02, 1.02))
    figure.legend(loc="outside lower center", ncols=3, frameon=False, handletextpad=0.2, columnspacing=1)
    return plain(figure, axes)


def seconds(found: Mapping[str, Any]) -> Figure:
    """Seconds to read and fit, with the straight line."""
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = figure.subplots()
    n = np.array([point["n"] for point in found["points"]])
    axes.plot(n, [point["seconds"] for point in found["points"]], "o", color=CYCLE[0], markersize=4, alpha=0.7)
    axes.set(xlabel="examples a side", ylabel="seconds", ylim=(0, None))
    if line := found["time"]:
        axes.plot([0, n.max()], [line["intercept"], line["intercept"] + line["slope"] * n.max()], color=CYCLE[0], linewidth=1)
        axes.set_title(f"{1000 * line['slope']:.2f} s per 1,000 pairs, R² {line['r2']:.3f}")
    return plain(figure, axes)


def published(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Harmful and harmless prompts refused under each row's condition, its name above it."""
    figure = Figure(figsize=(WIDTH, 0.9 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for i, row in enumerate(rows):
        for side, colour, marker in zip(SIDES, (CYCLE[1], CYCLE[0]), MARKERS, strict=False):
            dot(axes, i, row[side], colour, marker, side if i == 0 else None)
        axes.text(0, i - 0.2, row["name"], transform=axes.get_yaxis_transform(), fontsize=8, va="bottom")
    axes.set(ylim=(len(rows) - 0.5, -0.8), yticks=[], xlim=(-0.02, 1.02), xlabel="refused")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.spines["left"].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return plain(figure, axes)


def dot(axes: Axes, row: float, share: Mapping[str, Any], colour: str, marker: str, label: str | None) -> None:
    """A share with its interval."""
    reach = np.abs([[share["value"] - share["low"]], [share["high"] - share["value"]]])
    axes.errorbar(share["value"], row, xerr=reach, fmt=marker, color=colour, markersize=5, elinewidth=1, label=label)
