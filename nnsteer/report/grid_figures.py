"""Heat maps of layer and strength, and dose curves: a figure for each measure and set."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import product
from statistics import fmean

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nnsteer.report import charts
from nnsteer.report.charts import DASHED, known, legend, line, looks, panel, percent, value
from nnsteer.report.look import GREY, number, star
from nnsteer.report.results import Family, Results
from nnsteer.report.section import Picture, Section, file_name

BY = {"heat": "by layer and strength", "dose": "against strength"}
SEED = "seed"  # repetitions, not something to compare: averaged
Variants = Mapping[str, dict]
"""The axes of each variant."""


def grid_sections(results: Results) -> Iterator[Section]:
    """Heat maps where the study has layers and strengths. Dose curves where it has strengths, a
    line for each layer or else for each value of the longest axis."""
    axes = varied(results.grid)
    strengths = axes.pop("strength", [])
    if not strengths or not all(isinstance(strength, int | float) for strength in strengths):
        return
    if "layer" in axes:
        framed = f" Framed: {results.best}." if results.best else ""
        note = f"Starred: differs from the baseline, p < 0.05 (Holm).{framed}"
        shown = pictures(results, "heat", ["layer", "strength"], heat)
        yield Section("Layer and strength", [note], figures=shown)
    lines = max(axes, key=lambda axis: (axis == "layer", len(axes[axis])), default="")
    dotted = " Dotted: the random controls." if results.study["controls"] else ""
    shown = pictures(results, "dose", ["strength", lines], partial(dose_curves, lines))
    yield Section("Dose", [f"95 % intervals. Dashed: the baseline.{dotted}"], figures=shown)


def pictures(
    results: Results, kind: str, within: list[str], draw: Callable[..., Figure]
) -> list[Picture]:
    """One of every measure and set, for each combination of the axes that are not shown within."""
    others = [axis for axis in varied(results.grid) if axis not in within]
    groups: dict[str, dict[str, dict]] = {}
    for name, axes in results.grid.items():
        rest = ", ".join(f"{axis} {axes[axis]}" for axis in others if axis in axes)
        groups.setdefault(rest, {})[name] = axes
    shown = []
    for family, (rest, variants) in product(results.families.values(), groups.items()):
        title = f"{family.title},\n{rest}" if rest else family.title
        file = file_name(kind, family.measure, family.prompts, rest)
        make = partial(draw, results, family, variants, title)
        shown.append(Picture(file, f"{title} {BY[kind]}.", make))
    return shown


def varied(grid: Variants) -> dict[str, list]:
    """The axes that have several values, seeds aside, and the values in order."""
    names = dict.fromkeys(axis for axes in grid.values() for axis in axes if axis != SEED)
    return {axis: values for axis in names if len(values := levels(grid, axis)) > 1}


def levels(variants: Variants, axis: str) -> list:
    """The values of an axis, in order."""
    return in_order(axes[axis] for axes in variants.values() if axis in axes)


def in_order(values: Iterable) -> list:
    """Each value once: numbers by size, then texts by the numbers in them, so that layer 2 comes
    before layer 10."""

    def rank(value: object) -> tuple:
        if isinstance(value, int | float):
            return 0, value
        return 1, [int(digits) for digits in re.findall(r"\d+", str(value))], str(value)

    return sorted(set(values), key=rank)


def at(variants: Variants, **place: object) -> list[str]:
    """The variants at a place; several where they differ in the seed."""
    return [name for name, axes in variants.items() if place.items() <= axes.items()]


def merged(family: Family, variants: Iterable[str]) -> charts.Cell:
    """Several variants as one: the mean of their values, and the hull of their intervals."""
    cells = [family.cells[name] for name in variants if family.cells[name]["n"]]
    mean = fmean(cell["value"] for cell in cells) if cells else None
    lows, highs = ([c[end] for c in cells if c[end] is not None] for end in ("low", "high"))
    return {"value": mean, "low": min(lows, default=None), "high": max(highs, default=None)}


def heat(results: Results, family: Family, variants: Variants, title: str) -> Figure:
    """Layers down, strengths across. One colour scale for all maps of a measure."""
    layers, strengths = levels(variants, "layer"), levels(variants, "strength")
    low, high = limits(results, family)
    digits = math.ceil(math.log10(max(abs(low), abs(high))))
    decimals = max(0, 2 - digits)  # two digits at the far end, so that all have room
    table = np.full((len(layers), len(strengths)), np.nan)
    texts = [[""] * len(strengths) for _ in layers]
    figure, axes = panel(1.3 + 0.26 * len(layers))
    for i, j in np.ndindex(table.shape):
        names = at(variants, layer=layers[i], strength=strengths[j])
        table[i, j] = mean = value(merged(family, names))
        if not np.isnan(mean):
            shown = f"{100 * mean:.0f}" if family.binary else f"{mean:.{decimals}f}"
            stars = [star(family.cells[name]["against_baseline"]) for name in names]
            texts[i][j] = shown + max(stars)
        if results.best in names:
            frame: charts.Look = {"fill": False, "edgecolor": "#d55e00", "linewidth": 2}
            axes.add_patch(Rectangle((j - 0.46, i - 0.44), 0.92, 0.88, **frame))
    doses = [f"{strength:g}" for strength in strengths]
    bar = charts.heat(axes, table, texts, layers, doses, cmap="cividis", vmin=low, vmax=high)
    bar.set_label(family.measure)
    if family.binary:
        percent(bar.ax.yaxis)
    baseline = number(family.cells[results.study["baseline"]]["value"], family.binary)
    axes.set(xlabel="strength", ylabel="layer", title=f"{title}\nbaseline {baseline}")
    return figure


def dose_curves(
    lines: str, results: Results, family: Family, variants: Variants, title: str
) -> Figure:
    """A line with its band for each value of the axis `lines`, if there is one. Where there are
    several seeds, their mean and the hull of their bands."""
    strengths, values = levels(variants, "strength"), levels(variants, lines) or [None]
    figure, axes = panel(2.7 + 0.17 * math.ceil(len(values) / 4))
    for level, look in looks(values):
        place = {} if level is None else {lines: level}
        names = [at(variants, strength=dose, **place) for dose in strengths]
        steered = [merged(family, own) for own in names]
        label = None if level is None else f"{lines} {level}"
        line(axes, *known(strengths, steered), label=label, **look)
        controls = results.study["controls"]
        random = [merged(family, [controls[v] for v in own if v in controls]) for own in names]
        doses, cells = known(strengths, random)
        axes.plot(doses, list(map(value, cells)), color=GREY, linestyle=":", linewidth=1)
    baseline = family.cells[results.study["baseline"]]
    if baseline["n"]:
        axes.axhline(baseline["value"], **DASHED)
    low, high = limits(results, family)
    margin = 0.04 * (high - low)
    axes.set(xlabel="strength", ylabel=family.measure, title=title)
    axes.set_ylim(low - margin, high + margin)
    if min(np.diff(strengths), default=0) >= (strengths[-1] - strengths[0]) / 10:
        axes.set_xticks(strengths, [f"{dose:g}" for dose in strengths])
    if family.binary:
        percent(axes.yaxis)
    return legend(figure, 4)


def limits(results: Results, family: Family) -> tuple[float, float]:
    """One scale for all figures of a measure: 0 to 1 for rates, otherwise from the lowest to the
    highest interval's end."""
    if family.binary:
        return 0.0, 1.0
    families = [f for f in results.families.values() if f.measure == family.measure]
    cells = [cell for family in families for cell in family.cells.values()]
    ends = [cell[end] for cell in cells for end in ("value", "low", "high")]
    low = min((end for end in ends if end is not None), default=0.0)
    high = max((end for end in ends if end is not None), default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
