"""The figures of a refusal run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from matplotlib.figure import Figure

from nnsteer.measure.refusal import is_refused
from nnsteer.report.charts import (
    COLOURS,
    arms,
    heat,
    histogram,
    legend,
    looks,
    named,
    panel,
    panels,
    percent,
    slanted,
)
from nnsteer.report.look import GREY
from nnsteer.study.rows import Row
from nnsteer.texts.refusal import SIDES


def refusal(variants: Mapping[str, dict], labels: Mapping[str, str]) -> Figure:
    """Refusal per variant and side with intervals; the share of broken answers stands hatched
    behind it."""
    figure, axes = panel(0.9 + 0.42 * len(labels))
    for i, side in enumerate(SIDES):
        cells = [variants[variant][side] for variant in labels]
        y, rate = np.arange(len(cells)) + (i - 0.5) * 0.38, [cell["rate"] for cell in cells]
        axes.barh(
            y,
            rate,
            0.36,
            color=COLOURS[side],
            label=f"{side}, refused",
            xerr=arms(cells),
            error_kw={"elinewidth": 1},
        )
        broken = [cell["broken"] for cell in cells]
        axes.barh(
            y, broken, 0.36, left=rate, color="none", edgecolor=GREY, hatch="////", label="broken"
        )
    named(axes, list(labels.values()))
    axes.set(xlim=(0, 1.04), xlabel="share of answers")
    percent(axes.xaxis)
    return legend(figure)


def kinds(rows: Sequence[Row], labels: Mapping[str, str]) -> Figure:
    """Refusal per kind of prompt and variant, as a heat map: kinds down, so that many have room."""
    names = list(dict.fromkeys((row.set, row.kind) for row in rows))
    shares = np.array([[share(rows, variant, *name) for variant in labels] for name in names])
    figure, axes = panel(2.2 + 0.22 * len(names))
    texts = [[f"{100 * share:.0f}" for share in of_kind] for of_kind in shares]
    sides = [set_name.split()[0] for set_name, _ in names]
    kinds = [kind or side for side, (_, kind) in zip(sides, names, strict=True)]
    bar = heat(axes, shares, texts, kinds, list(labels.values()), cmap="Reds", vmin=0, vmax=1)
    bar.set_label("refused")
    percent(bar.ax.yaxis)
    for label, side in zip(axes.get_yticklabels(), sides, strict=True):
        label.set_color(COLOURS[side])
    slanted(axes)
    return figure


def share(rows: Sequence[Row], variant: str, set_name: str, kind: str) -> float:
    """The refused share of one cell of the heat map."""
    cell = (variant, set_name, kind)
    refused = [is_refused(row) for row in rows if (row.variant, row.set, row.kind) == cell]
    return sum(refused) / len(refused)


def scores_and_curves(condition: dict) -> Figure:
    """The test split's condition scores with the threshold, and F1 on the tune split for every
    threshold and layer."""
    figure, ((left, right),) = panels(3, 1, 2)
    scores, fires = condition["scores"]["test"], condition["fires_when"]
    histogram(
        left,
        dict(zip(SIDES, scores.values(), strict=True)),
        condition["threshold"],
        list(COLOURS.values()),
    )
    left.set(title=f"scores, layer {condition['site']['layer']}", xlabel="score", ylabel="prompts")
    for site, look in looks(list(condition["curves"])):
        curve = condition["curves"][site]
        right.plot(
            curve["thresholds"],
            curve[f"f1_{fires}"],
            color=look["color"],
            linewidth=1.2,
            label=site,
        )
    right.plot(
        condition["threshold"], condition["f1"], "o", color="black", markersize=5, label="chosen"
    )
    right.set(title=f"F1, firing {fires} it", xlabel="threshold", ylim=(0, 1.02))
    return legend(figure)


def doses(dose: dict) -> Figure:
    """Refused (solid) and broken (dotted) shares on the tune split against strength: a row of
    panels for the tokens read, a column for those steered, a line for each set of layers; crosses
    where random directions of the same length were tried."""
    trials = [trial["dose"] | trial for trial in dose["trials"]]
    spans, windows, bands = (
        sorted({str(t[key]): t[key] for t in trials}.values())
        for key in ("span", "window", "layers")
    )
    figure, grid = panels(
        1.5 * len(windows) + 0.8, len(windows), len(spans), sharex=True, sharey=True
    )
    for (i, window), (j, span) in product(enumerate(windows), enumerate(spans)):
        axes, here = grid[i][j], [t for t in trials if (t["span"], t["window"]) == (span, window)]
        for k, look in looks(range(len(bands))):
            own, colour = [t for t in here if t["layers"] == bands[k]], look["color"]
            x, marker = [t["strength"] for t in own], "o" if len(own) == 1 else None
            axes.plot(
                x,
                [t["refused"] for t in own],
                color=colour,
                marker=marker,
                label=f"layers {bands[k][0]}-{bands[k][-1]}",
            )
            axes.plot(x, [t["broken"] for t in own], color=colour, marker=marker, linestyle=":")
            final = [t for t in own if t["final"]]
            axes.plot(
                [t["strength"] for t in final],
                [t["at_random"] for t in final],
                "x",
                color=colour,
                markersize=6,
            )
        for t in here:
            if t["name"] == dose["chosen"]:
                axes.plot(
                    t["strength"], t["refused"], "o", color="black", markersize=9, fillstyle="none"
                )
        axes.set_title(f"read on {window},\nadded to {span}", fontsize=8)
        axes.set(ylim=(-0.02, 1.02), xlabel="strength, lengths" if i == len(windows) - 1 else None)
        percent(axes.yaxis)
    figure.supylabel("share of tune answers", fontsize=9)
    return legend(figure)
