"""Heat maps of layer and strength, and dose curves: a figure for each measure and set."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nnsteer.report import charts
from nnsteer.report.charts import legend, looks, panel, percent
from nnsteer.report.look import GREY, STAR, number
from nnsteer.report.results import Cell, Results
from nnsteer.report.section import Picture, file_name

SEED = "seed"  # repetitions, not something to compare: averaged


@dataclass(frozen=True)
class Panel:
    """One measure on one set, for variants that differ in two axes alone; `rest` says where they stand on the others."""

    measure: str
    prompts: str
    binary: bool
    rest: str
    variants: Mapping[str, dict]
    """The variants' axes."""

    @property
    def title(self) -> str:
        """For the head of the figure."""
        return f"{self.measure} on {self.prompts}" + (f",\n{self.rest}" if self.rest else "")

    def values(self, axis: str) -> list:
        """The axis's values, in order."""
        return in_order(axes[axis] for axes in self.variants.values() if axis in axes)

    def at(self, place: Mapping) -> list[str]:
        """The variants at a place; several where they differ in the seed."""
        return [name for name, axes in self.variants.items() if place.items() <= axes.items()]


def varied(grid: Mapping[str, dict]) -> dict[str, list]:
    """The axes that have several values, seeds aside, and the values in order."""
    names = dict.fromkeys(axis for axes in grid.values() for axis in axes if axis != SEED)
    values = {axis: in_order(axes[axis] for axes in grid.values() if axis in axes) for axis in names}
    return {axis: own for axis, own in values.items() if len(own) > 1}


def in_order(values: Iterable) -> list:
    """Each value once: numbers by size, then texts by the numbers in them, so that layer 2 comes before layer 10."""

    def rank(value: object) -> tuple:
        return (0, value) if isinstance(value, int | float) else (1, [int(n) for n in re.findall(r"\d+", str(value))], str(value))

    return sorted(set(values), key=rank)


def panels(results: Results, within: tuple[str, ...]) -> Iterator[Panel]:
    """Every measure and set, for each combination of the axes that are not shown within a figure."""
    others = [axis for axis in varied(results.grid) if axis not in within]
    groups: dict[str, dict[str, dict]] = {}
    for name, axes in results.grid.items():
        groups.setdefault(", ".join(f"{axis} {axes[axis]}" for axis in others if axis in axes), {})[name] = axes
    for (measure, binary), prompts, (rest, variants) in product(results.measures.items(), results.sets, groups.items()):
        yield Panel(measure, prompts, binary, rest, variants)


def named(kind: str, one: Panel) -> str:
    """The name of a panel's file."""
    return file_name(kind, one.measure, one.prompts, one.rest)


def heat_pictures(results: Results, at: Mapping[Cell, dict], best: str | None) -> Iterator[Picture]:
    """Heat maps of layer and strength where the study has both."""
    if doses(results) and "layer" in varied(results.grid):
        for one in panels(results, ("layer", "strength")):
            yield Picture(named("heat", one), f"{one.title} by layer and strength.", partial(heat, one, at, results, best))


def dose_pictures(results: Results, at: Mapping[Cell, dict]) -> Iterator[Picture]:
    """Dose curves where the study has strengths, a line for each layer or else for each value of the longest axis."""
    axes = varied(results.grid)
    others = [axis for axis in axes if axis != "strength"]
    lines = "layer" if "layer" in axes else max(others, key=lambda axis: len(axes[axis]), default=None)
    if doses(results):
        for one in panels(results, ("strength", lines or "")):
            yield Picture(named("dose", one), f"{one.title} against strength.", partial(dose_curves, one, lines, at, results))


def doses(results: Results) -> bool:
    """Whether there are strengths, and all are numbers."""
    strengths = varied(results.grid).get("strength", [])
    return bool(strengths) and all(isinstance(strength, int | float) for strength in strengths)


def heat(one: Panel, at: Mapping[Cell, dict], results: Results, best: str | None) -> Figure:
    """Layers down, strengths across. One colour scale for all maps of a measure."""
    layers, strengths = one.values("layer"), one.values("strength")
    low, high = limits(one, at, results)
    decimals = max(0, 2 - math.ceil(math.log10(max(abs(low), abs(high)))))  # two digits at the far end, so that all have room
    table, texts = np.full((len(layers), len(strengths)), np.nan), [[""] * len(strengths) for _ in layers]
    figure, axes = panel(1.3 + 0.26 * len(layers))
    for (i, layer), (j, strength) in product(enumerate(layers), enumerate(strengths)):
        cells = [at[v, one.prompts, one.measure] for v in one.at({"layer": layer, "strength": strength})]
        if known := [cell["value"] for cell in cells if cell["n"]]:
            table[i, j] = fmean(known)
            star = any((cell["against_baseline"] or {}).get("p_holm", 1) < STAR for cell in cells)
            texts[i][j] = (f"{100 * table[i, j]:.0f}" if one.binary else f"{table[i, j]:.{decimals}f}") + "*" * star
        if any(cell["variant"] == best for cell in cells):
            axes.add_patch(Rectangle((j - 0.46, i - 0.44), 0.92, 0.88, fill=False, edgecolor="#d55e00", linewidth=2))
    bar = charts.heat(axes, table, texts, layers, [f"{s:g}" for s in strengths], cmap="cividis", vmin=low, vmax=high)
    bar.set_label(one.measure)
    if one.binary:
        percent(bar.ax.yaxis)
    baseline = at[results.study["baseline"], one.prompts, one.measure]["value"]
    axes.set(xlabel="strength", ylabel="layer", title=f"{one.title}\nbaseline {number(baseline, one.binary)}")
    return figure


def dose_curves(one: Panel, lines: str | None, at: Mapping[Cell, dict], results: Results) -> Figure:
    """A line with its band for each value of an axis. Where there are several seeds, their mean and the hull of their bands."""
    values, strengths = one.values(lines) if lines else [None], one.values("strength")
    figure, axes = panel(2.7 + 0.17 * -(-len(values) // 4))
    for value, look in looks(values):
        own = {dose: one.at(({lines: value} if lines else {}) | {"strength": dose}) for dose in strengths}
        curve(axes, one, at, own, label=None if value is None else f"{lines} {value}", **look)
        controls = {dose: [c for v in names if (c := results.study["controls"].get(v))] for dose, names in own.items()}
        curve(axes, one, at, controls, color=GREY, linestyle=":", linewidth=1)
    baseline = at[results.study["baseline"], one.prompts, one.measure]
    if baseline["n"]:
        axes.axhline(baseline["value"], color="black", linestyle="--", linewidth=1)
    low, high = limits(one, at, results)
    margin = 0.04 * (high - low)
    axes.set(xlabel="strength", ylabel=one.measure, title=one.title, ylim=(low - margin, high + margin))
    if min(np.diff(strengths), default=0) >= (strengths[-1] - strengths[0]) / 10:
        axes.set_xticks(strengths, [f"{dose:g}" for dose in strengths])
    if one.binary:
        percent(axes.yaxis)
    return legend(figure, 4)


def curve(axes: Axes, one: Panel, at: Mapping[Cell, dict], variants: Mapping[float, list[str]], **look: Any) -> None:
    """One line over the strengths at which anything was measured; a band too, where it is drawn through."""
    measured = {dose: [at[v, one.prompts, one.measure] for v in names] for dose, names in variants.items()}
    known = {dose: own for dose, cells in measured.items() if (own := [cell for cell in cells if cell["n"]])}
    ends = [[[c[name] for c in cells if c[name] is not None] for cells in known.values()] for name in ("low", "high")]
    means = [fmean(cell["value"] for cell in cells) for cells in known.values()]
    banded = "linestyle" not in look and all(own for side in ends for own in side)
    hull = [[end(own) if banded else None for own in side] for end, side in zip((min, max), ends, strict=True)]
    cells = [{"value": v, "low": low, "high": high} for v, low, high in zip(means, *hull, strict=True)]
    charts.line(axes, list(known), cells, **look)


def limits(one: Panel, at: Mapping[Cell, dict], results: Results) -> tuple[float, float]:
    """One scale for all figures of a measure: 0 to 1 for rates, otherwise from the lowest to the highest interval's end."""
    if one.binary:
        return 0.0, 1.0
    cells = [at[v, s, one.measure] for v, s in product(results.variants, results.sets)]
    known = [cell[end] for cell in cells for end in ("value", "low", "high") if cell[end] is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
