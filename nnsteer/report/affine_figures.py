"""The figures of an ACE run: refusal against alpha for each method, the scores, and how the layer was chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from matplotlib.figure import Figure

from nnsteer.report.charts import COLOURS, dot, legend, line, looks, named, panel, panels, percent
from nnsteer.report.look import CYCLE, GREY
from nnsteer.texts.refusal import SIDES

BANDS = {  # one answer to a prompt is refused or not: such shares have no quartiles to speak of
    True: (("q25", "q75"), "the 25th to the 75th percentile of the prompts' shares"),
    False: (("low", "high"), "the rate's 95 % interval"),
}


def curves(name: str, cells: Mapping[str, dict], score: str, ends: tuple[str, str]) -> Figure:
    """Harmful and harmless prompts side by side."""
    figure, (row,) = panels(2.5, 1, 2, sharey=True)
    x = [float(alpha) for alpha in cells]
    for axes, side, other in zip(row, SIDES, SIDES[::-1], strict=True):
        own = [cell[side] for cell in cells.values()]
        axes.plot(x, [cell[other]["rate"] for cell in cells.values()], color=COLOURS[other], linestyle="--", linewidth=0.9)
        line(axes, x, own, ends, color=COLOURS[side], marker="o", markersize=3, label=f"{side}, refused")
        axes.plot(x, [1 - cell["coherence"] for cell in cells.values()], color="black", linestyle=":", label="broken")
        axes.plot([0, 1], [0, 1], "D", color="black", markersize=5, fillstyle="none", label="ideal")
        axes.set(title=f"{side} prompts", xlabel="alpha", ylim=(-0.04, 1.04))
        percent(axes.yaxis)
    figure.suptitle(f"{name}: {score}", fontsize=9)
    return legend(figure, 4)


def scores(found: Mapping[str, dict], label: Callable[[str], str]) -> Figure:
    """A row for each method, the best at the top."""
    order = sorted(found, key=lambda method: -found[method]["score"])
    figure, axes = panel(0.7 + 0.26 * len(order))
    for row, method in enumerate(order):
        colour = GREY if method.startswith("random") else CYCLE[1] if method.startswith("ace") else CYCLE[0]
        dot(axes, row, {"value": found[method]["score"], **found[method]}, color=colour)
    named(axes, [label(method) for method in order])
    axes.set(xlim=(-0.02, 1.02), xlabel="standardisation score")
    axes.grid(axis="x", linewidth=0.4, alpha=0.6)
    return figure


def layers(layer: dict) -> Figure:
    """The score at each site that was tried."""
    figure, axes = panel(2.4)
    names, found = list(layer["trials"]), [trial["score"] for trial in layer["trials"].values()]
    axes.plot(range(len(names)), found, color=CYCLE[0], marker="o", markersize=4)
    axes.plot(names.index(layer["chosen"]), max(found), "o", color="black", markersize=9, fillstyle="none")
    step = -(-len(names) // 6)
    axes.set_xticks(range(0, len(names), step), names[::step])
    axes.set(ylim=(-0.02, 1.02), ylabel="standardisation score")
    return figure


def candidates(layer: dict) -> Figure:
    """The refusal score of each candidate of Arditi et al.'s selection, a line for each position."""
    figure, axes = panel(2.8)
    best = layer["selection"]
    for position, look in looks(list(dict.fromkeys(trial["position"] for trial in layer["candidates"]))):
        own = sorted((t for t in layer["candidates"] if t["position"] == position), key=lambda trial: trial["layer"])
        axes.plot(
            [t["layer"] for t in own],
            [t["refusal"] for t in own],
            color=look["color"],
            linewidth=0.9,
            label=f"position {position}",
        )
        for trial in own:
            within = trial["kl"] <= layer["max_kl"] and trial["induce"] >= 0
            axes.plot(trial["layer"], trial["refusal"], fillstyle="full" if within else "none", **look)
    axes.plot(best["layer"], best["refusal"], "o", color="black", markersize=10, fillstyle="none")
    axes.set(xlabel="layer", ylabel="refusal score, ablated")
    return legend(figure)
