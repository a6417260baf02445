"""The figures of a skills run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from matplotlib.figure import Figure

from nnsteer.measure.walks import MATCHED, PERMUTED
from nnsteer.report.charts import dot, legend, looks, named, panel, percent
from nnsteer.report.look import CYCLE, GREY

CONTROLS = {PERMUTED: ":", MATCHED: "--"}
TICKS = (0, 0.25, 0.5, 1, 2, 5, 10, 20, 50, 100)


def places(summary: dict) -> Iterator[tuple[str, list[dict], dict[str, Any]]]:
    """Each place, without the controls, with its curve and its look."""
    for name, look in looks([name for name in summary["variants"] if name not in CONTROLS]):
        yield name, summary["variants"][name]["curve"], look


def trade_off(summary: dict, top: str) -> Figure:
    """The paper's plot: the rest against the skill, with the diagonal."""
    figure, axes = panel(3.9)
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)

    def line(curve: list[dict], **look: Any) -> None:
        x, y = ([step[f"{domain}_{top}"] for step in curve] for domain in ("skill", "retained"))
        axes.plot(x, y, linewidth=1.2, **look)

    for name, style in CONTROLS.items():
        line(summary["variants"][name]["curve"], color=GREY, linestyle=style, label=name)
    for name, curve, look in places(summary):
        line(curve, label=name, **look)
    axes.set(xlabel="skill left", ylabel="rest retained", xlim=(0, 1.06), ylim=(0, 1.06))
    percent(axes.xaxis, axes.yaxis)
    return legend(figure, 2)


def by_place(summary: dict, title: str) -> Figure:
    """T@0.9 or the gap of every variant."""
    cells = {name: cell["gap"] if title == "gap" else cell["kept"]["0.9"] for name, cell in summary["variants"].items()}
    figure, axes = panel(0.8 + 0.26 * len(cells))
    for row, (name, cell) in enumerate(cells.items()):
        dot(axes, row, cell, color=GREY if name in CONTROLS else CYCLE[1] if name == summary["choice"]["best"] else "black")
    named(axes, list(cells))
    axes.set(xlabel=f"{title}, share of accuracy")
    percent(axes.xaxis)
    return figure


def coefficients(summary: dict) -> Figure:
    """Skill and rest by coefficient, a colour for each place."""
    figure, axes = panel(3.4)
    for name, curve, look in places(summary):
        x = [step["coefficient"] for step in curve]
        axes.plot(x, [step["skill_top1"] for step in curve], color=look["color"], linewidth=1.2, label=name)
        axes.plot(x, [step["retained_top1"] for step in curve], color=look["color"], linewidth=1.2, linestyle="--")
    axes.axhline(0.9, color=GREY, linewidth=0.7)
    axes.set_xscale("symlog", linthresh=1)
    axes.set(xlabel="coefficient, lengths of the direction", ylabel="accuracy left", ylim=(0, 1.06))
    axes.set_xlim(left=0)
    ticks = [tick for tick in TICKS if tick <= max(axes.get_xlim()[1], 1)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.set_xticks([], minor=True)
    percent(axes.yaxis)
    return legend(figure, 2)
