"""The figures of a skills run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from nnsteer.measure.walks import MATCHED, PERMUTED
from nnsteer.report.look import CYCLE, GREY, MARKERS, plain
from nnsteer.report.pictures import WIDTH, Picture

CONTROLS = {PERMUTED: ":", MATCHED: "--"}
TICKS = (0, 0.25, 0.5, 1, 2, 5, 10, 20, 50, 100)
PICKS = {
    "kept": ("T@0.9", "what is retained where 90 % of the skill is left; orange: the best on the tune split"),
    "gap": ("gap", "the most by which the share retained exceeds the skill's"),
}


def pictures(summary: dict) -> Iterator[Picture]:
    """Every figure."""
    note = (
        "Accuracy as a share of the unsteered model's, a point for each coefficient. Above the diagonal, steering takes more of "
        "the skill than of the rest. Grey: the permuted controls at the best place."
    )
    for top, name in (("top1", "top-1"), ("top10", "top-10")):
        yield Picture(f"trade-off-{name}", "Skill against the rest", note, f"{name} accuracy", partial(trade_off, summary, top))
    note = "95 % intervals. Grey: the permuted controls at the best place."
    for name, (title, shows) in PICKS.items():
        yield Picture(name, "By place", note, shows, partial(by_place, summary, title))
    note = "Top-1 accuracy as a share of the unsteered model's. Solid: the skill. Dashed: the rest."
    yield Picture("coefficients", "By coefficient", note, "every place", partial(coefficients, summary))


def places(summary: dict) -> dict[str, dict]:
    """The variants without the controls."""
    return {name: cell for name, cell in summary["variants"].items() if name not in CONTROLS}


def looks(summary: dict) -> Iterator[tuple[str, dict, object, str]]:
    """Each place with a colour and a marker."""
    own = places(summary)
    colours = CYCLE if len(own) <= len(CYCLE) else matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(own)))
    for (name, cell), colour, marker in zip(own.items(), colours, cycle(MARKERS)):
        yield name, cell, colour, marker


def trade_off(summary: dict, top: str) -> Figure:
    """The paper's plot: the rest against the skill, with the diagonal."""
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)

    def line(cell: dict, **look: Any) -> None:
        x, y = ([step[f"{domain}_{top}"] for step in cell["curve"]] for domain in ("skill", "retained"))
        axes.plot(x, y, linewidth=1.2, markersize=3.5, **look)

    for name, style in CONTROLS.items():
        line(summary["variants"][name], color=GREY, linestyle=style, label=name)
    for name, cell, colour, marker in looks(summary):
        line(cell, color=colour, marker=marker, label=name)
    axes.set(xlabel="skill left", ylabel="rest retained", xlim=(0, 1.06), ylim=(0, 1.06))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(loc="outside lower center", ncols=2, frameon=False, handlelength=1.6, columnspacing=1)
    return plain(figure, axes)


def by_place(summary: dict, title: str) -> Figure:
    """T@0.9 or the gap of every variant."""
    cells = {name: cell["gap"] if title == "gap" else cell["kept"]["0.9"] for name, cell in summary["variants"].items()}
    figure = Figure(figsize=(WIDTH, 0.8 + 0.26 * len(cells)), layout="constrained")
    axes = figure.subplots()
    for y, (name, cell) in enumerate(cells.items()):
        if cell["value"] is None:
            continue
        colour = GREY if name in CONTROLS else CYCLE[1] if name == summary["choice"]["best"] else "black"
        axes.plot(cell["value"], y, "o", color=colour, markersize=4)
        if cell["low"] is not None:
            axes.plot([cell["low"], cell["high"]], [y, y], color=colour, linewidth=1)
    axes.set_yticks(range(len(cells)), list(cells))
    axes.invert_yaxis()
    axes.set(xlabel=title)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return plain(figure, axes)


def coefficients(summary: dict) -> Figure:
    """Skill and rest by coefficient, a colour for each place."""
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, cell, colour, _ in looks(summary):
        x = [step["coefficient"] for step in cell["curve"]]
        axes.plot(x, [step["skill_top1"] for step in cell["curve"]], color=colour, linewidth=1.2, label=name)
        axes.plot(x, [step["retained_top1"] for step in cell["curve"]], color=colour, linewidth=1.2, linestyle="--")
    axes.axhline(0.9, color=GREY, linewidth=0.7)
    axes.set_xscale("symlog", linthresh=1)
    axes.set(xlabel="coefficient, lengths of the direction", ylabel="accuracy left", ylim=(0, 1.06))
    axes.set_xlim(left=0)
    ticks = [tick for tick in TICKS if tick <= max(axes.get_xlim()[1], 1)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(loc="outside lower center", ncols=2, frameon=False, handlelength=1.6, columnspacing=1)
    return plain(figure, axes)
