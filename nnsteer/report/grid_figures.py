"""Heat maps of layer and strength, and dose curves: a figure for each measure and set."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import fmean

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nnsteer.report import charts
from nnsteer.report.charts import legend, line, looks, panel, percent, value
from nnsteer.report.look import GREY, number, star
from nnsteer.report.results import Family, Results
from nnsteer.report.section import Picture, Section, file_name

SEED = "seed"  # repetitions, not something to compare: averaged


@dataclass(frozen=True)
class Slice:
    """One measure on one set, for variants that differ in two axes alone. `variants` has their
    axes, `rest` says where they stand on the others."""

    results: Results
    family: Family
    variants: Mapping[str, dict]
    rest: str

    @property
    def title(self) -> str:
        """For the head of the figure."""
        return self.family.title + (f",\n{self.rest}" if self.rest else "")

    def picture(self, kind: str, against: str, draw: Callable[[], Figure]) -> Picture:
        """Its figure of a kind."""
        name = file_name(kind, self.family.measure, self.family.prompts, self.rest)
        return Picture(name, f"{self.title} {against}.", draw)

    def at(self, **place: object) -> list[str]:
        """The variants at a place; several where they differ in the seed."""
        return [name for name, axes in self.variants.items() if place.items() <= axes.items()]

    def merged(self, variants: Iterable[str]) -> charts.Cell:
        """Several variants as one: the mean of their values, and the hull of their intervals."""
        cells = [self.family.cells[name] for name in variants]
        cells = [cell for cell in cells if cell["n"]]
        mean = fmean(cell["value"] for cell in cells) if cells else None
        lows, highs = ([c[end] for c in cells if c[end] is not None] for end in ("low", "high"))
        return {"value": mean, "low": min(lows, default=None), "high": max(highs, default=None)}


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
        parts = slices(results, "layer", "strength")
        shown = [p.picture("heat", "by layer and strength", partial(heat, p)) for p in parts]
        yield Section("Layer and strength", [note], figures=shown)
    longest = max(axes, key=lambda axis: len(axes[axis]), default="")
    axis = "layer" if "layer" in axes else longest
    dotted = " Dotted: the random controls." if results.study["controls"] else ""
    parts = slices(results, "strength", axis)
    shown = [p.picture("dose", "against strength", partial(dose_curves, p, axis)) for p in parts]
    yield Section("Dose", [f"95 % intervals. Dashed: the baseline.{dotted}"], figures=shown)


def in_order(values: Iterable) -> list:
    """Each value once: numbers by size, then texts by the numbers in them, so that layer 2 comes
    before layer 10."""

    def rank(value: object) -> tuple:
        if isinstance(value, int | float):
            return 0, value
        return 1, [int(digits) for digits in re.findall(r"\d+", str(value))], str(value)

    return sorted(set(values), key=rank)


def levels(variants: Mapping[str, dict], axis: str) -> list:
    """The values of an axis, in order."""
    return in_order(axes[axis] for axes in variants.values() if axis in axes)


def varied(grid: Mapping[str, dict]) -> dict[str, list]:
    """The axes that have several values, seeds aside, and the values in order."""
    names = dict.fromkeys(axis for axes in grid.values() for axis in axes if axis != SEED)
    return {axis: values for axis in names if len(values := levels(grid, axis)) > 1}


def slices(results: Results, *within: str) -> Iterator[Slice]:
    """Every measure and set, for each combination of the axes that a figure does not show."""
    others = [axis for axis in varied(results.grid) if axis not in within]
    groups: dict[str, dict[str, dict]] = {}
    for name, axes in results.grid.items():
        rest = ", ".join(f"{axis} {axes[axis]}" for axis in others if axis in axes)
        groups.setdefault(rest, {})[name] = axes
    for family, (rest, variants) in product(results.families.values(), groups.items()):
        yield Slice(results, family, variants, rest)


def heat(part: Slice) -> Figure:
    """Layers down, strengths across. One colour scale for all maps of a measure."""
    layers, strengths = levels(part.variants, "layer"), levels(part.variants, "strength")
    family, (low, high) = part.family, limits(part)
    decimals = max(
        0, 2 - math.ceil(math.log10(max(abs(low), abs(high))))
    )  # two digits at the far end
    table = np.full((len(layers), len(strengths)), np.nan)
    texts = np.full(table.shape, "", dtype=object)
    figure, axes = panel(1.3 + 0.26 * len(layers))
    for i, j in np.ndindex(table.shape):
        variants = part.at(layer=layers[i], strength=strengths[j])
        table[i, j] = mean = value(part.merged(variants))
        if not np.isnan(mean):
            texts[i, j] = f"{100 * mean:.0f}" if family.binary else f"{mean:.{decimals}f}"
            texts[i, j] += max(star(family.cells[name]["against_baseline"]) for name in variants)
        if part.results.best in variants:
            frame = {"fill": False, "edgecolor": "#d55e00", "linewidth": 2}
            axes.add_patch(Rectangle((j - 0.46, i - 0.44), 0.92, 0.88, **frame))
    doses = [f"{strength:g}" for strength in strengths]
    bar = charts.heat(axes, table, texts, layers, doses, cmap="cividis", vmin=low, vmax=high)
    bar.set_label(family.measure)
    if family.binary:
        percent(bar.ax.yaxis)
    baseline = family.cells[part.results.study["baseline"]]["value"]
    title = f"{part.title}\nbaseline {number(baseline, family.binary)}"
    axes.set(xlabel="strength", ylabel="layer", title=title)
    return figure


def dose_curves(part: Slice, axis: str) -> Figure:
    """A line with its band for each value of an axis, if any. Where there are several seeds, their
    mean and the hull of their bands."""
    values, strengths = levels(part.variants, axis) or [None], levels(part.variants, "strength")
    family, study, (low, high) = part.family, part.results.study, limits(part)
    figure, axes = panel(2.7 + 0.17 * math.ceil(len(values) / 4))
    for level, look in looks(values):
        place = {} if level is None else {axis: level}
        variants = [part.at(strength=dose, **place) for dose in strengths]
        controls = [[study["controls"].get(name) for name in names] for names in variants]
        label = None if level is None else f"{axis} {level}"
        line(axes, *measured(strengths, map(part.merged, variants)), label=label, **look)
        x, cells = measured(strengths, (part.merged(filter(None, names)) for names in controls))
        axes.plot(x, list(map(value, cells)), color=GREY, linestyle=":", linewidth=1)
    baseline = family.cells[study["baseline"]]
    if baseline["n"]:
        axes.axhline(baseline["value"], color="black", linestyle="--", linewidth=1)
    margin = 0.04 * (high - low)
    axes.set(xlabel="strength", ylabel=family.measure, title=part.title)
    axes.set_ylim(low - margin, high + margin)
    if min(np.diff(strengths), default=0) >= (strengths[-1] - strengths[0]) / 10:
        axes.set_xticks(strengths, [f"{dose:g}" for dose in strengths])
    if family.binary:
        percent(axes.yaxis)
    return legend(figure, 4)


def measured(
    doses: Iterable[float], cells: Iterable[charts.Cell]
) -> tuple[list[float], list[charts.Cell]]:
    """The doses at which there is a value, and the values."""
    pairs = [
        (dose, cell) for dose, cell in zip(doses, cells, strict=True) if cell["value"] is not None
    ]
    return [dose for dose, _ in pairs], [cell for _, cell in pairs]


def limits(part: Slice) -> tuple[float, float]:
    """One scale for all figures of a measure: 0 to 1 for rates, otherwise from the lowest to the
    highest interval's end."""
    if part.family.binary:
        return 0.0, 1.0
    families = [f for f in part.results.families.values() if f.measure == part.family.measure]
    cells = [cell for family in families for cell in family.cells.values() if cell["n"]]
    ends = [cell[end] for cell in cells for end in ("value", "low", "high")]
    known = [end for end in ends if end is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
