"""The figures of a skills run."""

from __future__ import annotations

from matplotlib.figure import Figure

from nnsteer.measure.tradeoff import MATCHED, PERMUTED
from nnsteer.report.charts import dot, legend, looks, named, panel, percent
from nnsteer.report.look import CYCLE, GREY
from nnsteer.texts.skills import DOMAINS

CONTROLS = {PERMUTED: ":", MATCHED: "--"}
TICKS = (0, 0.25, 0.5, 1, 2, 5, 10, 20, 50, 100)


def look_of_places(summary: dict) -> dict[str, dict]:
    """A colour and a marker for each place, without the controls."""
    return dict(looks([place for place in summary["variants"] if place not in CONTROLS]))


def trade_off(summary: dict, top: str) -> Figure:
    """The paper's plot: the rest against the skill, with the diagonal."""
    figure, axes = panel(3.9)
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    grey = {name: {"color": GREY, "linestyle": style} for name, style in CONTROLS.items()}
    for place, look in (grey | look_of_places(summary)).items():
        curve = summary["variants"][place]["curve"]
        skill, retained = ([step[f"{domain}_{top}"] for step in curve] for domain in DOMAINS)
        axes.plot(skill, retained, linewidth=1.2, label=place, **look)
    axes.set(xlabel="skill left", ylabel="rest retained", xlim=(0, 1.06), ylim=(0, 1.06))
    percent(axes.xaxis, axes.yaxis)
    return legend(figure, 2)


def by_place(summary: dict, title: str) -> Figure:
    """T@0.9 or the gap of every place and control."""
    variants = summary["variants"]
    figure, axes = panel(0.8 + 0.26 * len(variants))
    colours = dict.fromkeys(CONTROLS, GREY) | {summary["choice"]["best"]: CYCLE[1]}
    for row, (place, cell) in enumerate(variants.items()):
        estimate = cell["gap"] if title == "gap" else cell["kept"]["0.9"]
        dot(axes, row, estimate, color=colours.get(place, "black"))
    named(axes, list(variants))
    axes.set(xlabel=f"{title}, share of accuracy")
    percent(axes.xaxis)
    return figure


def coefficients(summary: dict) -> Figure:
    """Skill and rest by coefficient, a colour for each place."""
    figure, axes = panel(3.4)
    for place, look in look_of_places(summary).items():
        curve, colour = summary["variants"][place]["curve"], look["color"]
        steps = [step["coefficient"] for step in curve]
        for domain, style, label in zip(DOMAINS, ("-", "--"), (place, None), strict=True):
            shares = [step[f"{domain}_top1"] for step in curve]
            axes.plot(steps, shares, style, color=colour, linewidth=1.2, label=label)
    axes.axhline(0.9, color=GREY, linewidth=0.7)
    axes.set_xscale("symlog", linthresh=1)
    axes.set(xlabel="coefficient, lengths of the direction", ylabel="accuracy left")
    axes.set(xlim=(0, None), ylim=(0, 1.06))
    ticks = [tick for tick in TICKS if tick <= max(axes.get_xlim()[1], 1)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    percent(axes.yaxis)
    return legend(figure, 2)
