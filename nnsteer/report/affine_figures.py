"""The figures of an ACE run: refusal against alpha for each method, the scores, and how the layer
was chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from matplotlib.figure import Figure

from nnsteer.report.charts import COLOURS, dot, legend, line, looks, named, panel, panels, percent
from nnsteer.report.look import CYCLE, GREY
from nnsteer.texts.refusal import SIDES

# one answer to a prompt is refused or not: such shares have no quartiles to speak of
BANDS = {
    True: (("q25", "q75"), "the 25th to the 75th percentile of the prompts' shares"),
    False: (("low", "high"), "the rate's 95 % interval"),
}


def curves(name: str, cells: Mapping[str, dict], score: str, ends: tuple[str, str]) -> Figure:
    """Harmful and harmless prompts side by side."""
    figure, (row,) = panels(2.5, 1, 2, sharey=True)
    x = [float(alpha) for alpha in cells]
    rates = {side: [cell[side] for cell in cells.values()] for side in SIDES}
    broken = [1 - cell["coherence"] for cell in cells.values()]
    for axes, side, other in zip(row, SIDES, SIDES[::-1], strict=True):
        look = {"color": COLOURS[side], "marker": "o", "markersize": 3}
        means = [rate["rate"] for rate in rates[other]]
        axes.plot(x, means, color=COLOURS[other], linestyle="--", linewidth=0.9)
        line(axes, x, rates[side], ends, label=f"{side}, refused", **look)
        axes.plot(x, broken, color="black", linestyle=":", label="broken")
        axes.plot([0, 1], [0, 1], "kD", markersize=5, fillstyle="none", label="ideal")
        axes.set(title=f"{side} prompts", xlabel="alpha", ylim=(-0.04, 1.04))
        percent(axes.yaxis)
    figure.suptitle(f"{name}: {score}", fontsize=9)
    return legend(figure, 2)


def scores(of_methods: Mapping[str, dict], label: Callable[[str], str]) -> Figure:
    """A row for each method, the best at the top."""
    order = sorted(of_methods, key=lambda method: -of_methods[method]["score"])
    figure, axes = panel(0.7 + 0.26 * len(order))
    for row, method in enumerate(order):
        score, ace = of_methods[method], method.startswith("ace")
        colour = GREY if method.startswith("random") else CYCLE[1] if ace else CYCLE[0]
        dot(axes, row, score | {"value": score["score"]}, color=colour)
    named(axes, [label(method) for method in order])
    axes.set(xlim=(-0.02, 1.02), xlabel="standardisation score")
    axes.grid(axis="x", linewidth=0.4, alpha=0.6)
    return figure


def layers(layer: dict) -> Figure:
    """The score at each site that was tried."""
    figure, axes = panel(2.4)
    sites = list(layer["trials"])
    values = [trial["score"] for trial in layer["trials"].values()]
    axes.plot(values, color=CYCLE[0], marker="o", markersize=4)
    axes.plot(sites.index(layer["chosen"]), max(values), "ko", markersize=9, fillstyle="none")
    step = -(-len(sites) // 6)
    axes.set_xticks(range(0, len(sites), step), sites[::step])
    axes.set(ylim=(-0.02, 1.02), ylabel="standardisation score")
    return figure


def candidates(layer: dict) -> Figure:
    """The refusal score of each candidate of Arditi et al.'s selection, a line for each
    position."""
    figure, axes = panel(2.8)
    positions = list(dict.fromkeys(trial["position"] for trial in layer["candidates"]))
    for position, look in looks(positions):
        trials = [trial for trial in layer["candidates"] if trial["position"] == position]
        trials.sort(key=lambda trial: trial["layer"])
        x, y = ([trial[name] for trial in trials] for name in ("layer", "refusal"))
        axes.plot(x, y, color=look["color"], linewidth=0.9, label=f"position {position}")
        for trial in trials:
            within = trial["kl"] <= layer["max_kl"] and trial["induce"] >= 0
            fill = "full" if within else "none"
            axes.plot(trial["layer"], trial["refusal"], fillstyle=fill, **look)
    best = layer["selection"]
    axes.plot(best["layer"], best["refusal"], "ko", markersize=10, fillstyle="none")
    axes.set(xlabel="layer", ylabel="refusal score, ablated")
    return legend(figure)
