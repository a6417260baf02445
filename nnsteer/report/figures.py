"""The figures of a refusal run, as PNG."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from nnsteer.folder import Folder
from nnsteer.measure.answers import KEY
from nnsteer.report.look import GREY, plain
from nnsteer.report.summary import LABELS
from nnsteer.texts.refusal import SIDES

COLOURS = {"harmful": "#b5483a", "harmless": "#3b6ea5"}
LINES = ("#1b4965", "#5fa8a3", "#e09f3e", "#9e2a2b")


def draw(folder: Folder, summary: dict) -> None:
    """Writes refusal.png, kinds.png, condition.png and dose.png into figures/."""
    (folder / "figures").mkdir(exist_ok=True)
    rows, condition, dose = (
        folder.read_lines("rows.jsonl", KEY),
        folder.read_json("condition.json"),
        folder.read_json("dose.json"),
    )
    figures: dict[str, Callable[[], Figure]] = {
        "refusal": lambda: refusal(summary),
        "kinds": lambda: kinds(rows),
        "condition": lambda: scores_and_curves(condition),
        "dose": lambda: doses(dose),
    }
    for name, make in figures.items():
        make().savefig(folder / "figures" / f"{name}.png", dpi=150)


def refusal(summary: dict) -> Figure:
    """Refusal per variant and side with Wilson intervals; the share of broken answers stands hatched on top."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for i, side in enumerate(SIDES):
        cells = [summary["variants"][variant][side] for variant in LABELS]
        x = np.arange(len(cells)) + (i - 0.5) * 0.38
        rate = np.array([c["rate"] for c in cells])
        error = np.array([[c["rate"] - c["low"] for c in cells], [c["high"] - c["rate"] for c in cells]])
        axes.bar(
            x, rate, 0.36, color=COLOURS[side], label=f"{side} prompts", yerr=error, error_kw={"elinewidth": 1, "capsize": 2}
        )
        broken = [c["broken"] for c in cells]
        axes.bar(x, broken, 0.36, bottom=rate, color="none", edgecolor=GREY, hatch="////", label="broken" if i else None)
        for at, value, top in zip(x, rate, error[1] + rate, strict=True):
            axes.text(at, top + 0.02, f"{100 * value:.0f}", ha="center", fontsize=8)
    axes.set(ylim=(0, 1.12), ylabel="share refused", title="Refusal on the test split")
    axes.set_xticks(range(len(LABELS)), [label.replace(" ", "\n", 1) for label in LABELS.values()])
    axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return plain(figure, axes)


def kinds(rows: list[dict]) -> Figure:
    """Refusal per kind of prompt and variant, as a heat map: kinds down, so that many have room."""
    names = list(dict.fromkeys((row["side"], row["kind"]) for row in rows))
    shares = np.array([[share(rows, variant, *name) for variant in LABELS] for name in names])
    figure = Figure(figsize=(5.6, 1.4 + 0.24 * len(names)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Reds", vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(shares):
        axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=9, color="white" if value > 0.6 else "black")
    axes.set_xticks(range(len(LABELS)), [label.replace(" ", "\n", 1) for label in LABELS.values()], fontsize=8)
    axes.set_yticks(range(len(names)), [kind or side for side, kind in names])
    for label, (side, _) in zip(axes.get_yticklabels(), names, strict=True):
        label.set_color(COLOURS[side])
    axes.set_title("Refused, %, by kind of prompt (red names: harmful)")
    figure.colorbar(image, ax=axes, fraction=0.04, format=PercentFormatter(1.0))
    return figure


def share(rows: list[dict], variant: str, side: str, kind: str) -> float:
    """The refused share of one cell of the heat map."""
    own = [row["refused"] for row in rows if (row["variant"], row["side"], row["kind"]) == (variant, side, kind)]
    return sum(own) / len(own)


def scores_and_curves(condition: dict) -> Figure:
    """The test split's condition scores with the threshold, and F1 on the tune split for every threshold and layer."""
    figure = Figure(figsize=(7.2, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    scores = condition["scores"]["test"]
    bins = np.histogram_bin_edges([*scores["harmful"], *scores["harmless"]], bins=40)
    for side in SIDES:
        left.hist(scores[side], bins=bins, color=COLOURS[side], alpha=0.7, label=side)
    left.axvline(condition["threshold"], color="black", linewidth=1, linestyle="--", label=f"fires {condition['fires_when']}")
    left.set(title=f"Scores on the test split, layer {condition['site']['layer']}", xlabel="score", ylabel="prompts")
    left.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2), columnspacing=1)
    curve_name = f"f1_{condition['fires_when']}"
    for colour, (site, curve) in zip(LINES * 20, condition["curves"].items(), strict=False):
        right.plot(curve["thresholds"], curve[curve_name], color=colour, linewidth=1.2, label=site)
    right.plot(condition["threshold"], condition["f1"], "o", color="black", markersize=5, label="chosen")
    right.set(title=f"F1 on the tune split, firing {condition['fires_when']} it", xlabel="threshold", ylim=(0, 1.02))
    right.legend(frameon=False, fontsize=8)
    plain(figure, left)
    return plain(figure, right)


def doses(dose: dict) -> Figure:
    """Refused (solid) and broken (dotted) shares on the tune split against strength: a row of panels for the tokens read, a
    column for those steered, a line for each set of layers; crosses where random directions of the same length were tried."""
    trials = [trial["dose"] | trial for trial in dose["trials"]]
    spans, windows, bands = (sorted({str(t[key]): t[key] for t in trials}.values()) for key in ("span", "window", "layers"))
    figure = Figure(figsize=(3.2 * len(spans) + 0.6, 2.2 * len(windows) + 0.6), layout="constrained")
    panels = figure.subplots(len(windows), len(spans), sharex=True, sharey=True, squeeze=False)
    for (i, window), (j, span) in product(enumerate(windows), enumerate(spans)):
        axes = panels[i][j]
        here = [t for t in trials if (t["span"], t["window"]) == (span, window)]
        for colour, band in zip(LINES * 20, bands, strict=False):
            own = [t for t in here if t["layers"] == band]
            x, marker = [t["strength"] for t in own], "o" if len(own) == 1 else None
            axes.plot(x, [t["refused"] for t in own], color=colour, marker=marker, label=f"layers {band[0]}-{band[-1]}")
            axes.plot(x, [t["broken"] for t in own], color=colour, marker=marker, linestyle=":")
        for t in here:
            if t["name"] == dose["chosen"]:
                axes.plot(t["strength"], t["refused"], "o", color="black", markersize=9, fillstyle="none")
            if t["final"]:
                axes.plot(t["strength"], t["at_random"], "x", color=LINES[bands.index(t["layers"]) % len(LINES)], markersize=6)
        axes.set_title(f"read on {window} opener tokens,\nadded to {span} tokens", fontsize=9)
        axes.set(ylim=(-0.02, 1.02), xlabel="strength, lengths" if i == len(windows) - 1 else None)
        plain(figure, axes)
    figure.supylabel(
        "share of tune answers: solid refused, dotted broken,\ncrosses: what random directions of that length change", fontsize=9
    )
    figure.legend(
        *panels[0][0].get_legend_handles_labels(), frameon=False, ncols=len(bands), loc="outside lower center", fontsize=9
    )
    return figure
