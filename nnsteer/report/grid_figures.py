"""Heat maps of layer and strength, and dose curves: a figure for each measure and set."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import fmean

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from nnsteer.report.look import CYCLE, GREY, MARKERS, number, plain
from nnsteer.report.pictures import WIDTH, Picture, file_name
from nnsteer.report.results import Cell, Results, by_cell

SEED = "seed"  # repetitions, not something to compare: averaged
ALPHA = 0.05


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


def named(kind: str, panel: Panel) -> str:
    """The name of a panel's file."""
    return file_name(kind, panel.measure, panel.prompts, panel.rest)


def grid_pictures(results: Results, cells: list[dict], best: str | None) -> Iterator[Picture]:
    """Heat maps of layer and strength where the study has both, and dose curves where it has strengths."""
    at, axes = by_cell(cells), varied(results.grid)
    doses = axes.get("strength", [])
    if not doses or not all(isinstance(dose, int | float) for dose in doses):
        return
    others = [axis for axis in axes if axis != "strength"]
    lines = "layer" if "layer" in axes else max(others, key=lambda axis: len(axes[axis]), default=None)
    if "layer" in axes:
        note = f"Starred: differs from the baseline, p < {ALPHA} (Holm)." + (f" Framed: {best}." if best else "")
        for panel in panels(results, ("layer", "strength")):
            shows = f"{panel.title} by layer and strength"
            yield Picture(named("heat", panel), "Layer and strength", note, shows, partial(heat, panel, at, results, best))
    note = "95 % intervals. Dashed: the baseline." + (" Dotted: the random controls." if results.study["controls"] else "")
    for panel in panels(results, ("strength", lines or "")):
        shows = f"{panel.title} against strength"
        yield Picture(named("dose", panel), "Dose", note, shows, partial(dose_curves, panel, lines, at, results))


def heat(panel: Panel, at: Mapping[Cell, dict], results: Results, best: str | None) -> Figure:
    """Layers down, strengths across. One colour scale for all maps of a measure."""
    layers, strengths = panel.values("layer"), panel.values("strength")
    figure = Figure(figsize=(WIDTH, 1.3 + 0.26 * len(layers)), layout="constrained")
    axes = figure.subplots()
    spots = {
        (i, j): [at[v, panel.prompts, panel.measure] for v in panel.at({"layer": layer, "strength": strength})]
        for (i, layer), (j, strength) in product(enumerate(layers), enumerate(strengths))
    }
    table = np.full((len(layers), len(strengths)), np.nan)
    for spot, cells in spots.items():
        known = [cell["value"] for cell in cells if cell["n"]]
        table[spot] = fmean(known) if known else np.nan
    low, high = limits(panel, at, results)
    decimals = max(0, 2 - math.ceil(math.log10(max(abs(low), abs(high)))))  # two digits at the far end, so that all have room
    image = axes.imshow(table, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    for spot, cells in spots.items():
        if not np.isnan(table[spot]):
            star = any((cell["against_baseline"] or {}).get("p_holm", 1) < ALPHA for cell in cells)
            text = (f"{100 * table[spot]:.0f}" if panel.binary else f"{table[spot]:.{decimals}f}") + "*" * star
            dark = table[spot] < (low + high) / 2
            axes.text(
                *spot[::-1], text, ha="center", va="center", fontsize=min(8, 48 / len(strengths)), color="w" if dark else "k"
            )
        if any(cell["variant"] == best for cell in cells):
            axes.add_patch(Rectangle((spot[1] - 0.46, spot[0] - 0.44), 0.92, 0.88, fill=False, edgecolor="#d55e00", linewidth=2))
    axes.set_xticks(range(len(strengths)), [f"{s:g}" for s in strengths])
    axes.set_yticks(range(len(layers)), layers)
    axes.set(xlabel="strength", ylabel="layer")
    baseline = at[results.study["baseline"], panel.prompts, panel.measure]["value"]
    axes.set_title(f"{panel.title}\nbaseline {number(baseline, panel.binary)}")
    figure.colorbar(image, ax=axes, fraction=0.04, format=PercentFormatter(1.0) if panel.binary else None)
    return figure


def dose_curves(panel: Panel, lines: str | None, at: Mapping[Cell, dict], results: Results) -> Figure:
    """A line with its band for each value of an axis. Where there are several seeds, their mean and the hull of their bands."""
    values = panel.values(lines) if lines else [None]
    rows = -(-len(values) // 4)
    figure = Figure(figsize=(WIDTH, 2.7 + 0.17 * rows), layout="constrained")
    axes = figure.subplots()
    colours = CYCLE if len(values) <= len(CYCLE) else matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(values)))
    for value, colour, marker in zip(values, colours, MARKERS * len(values), strict=False):
        places = [({lines: value} if lines else {}) | {"strength": dose} for dose in panel.values("strength")]
        own = {place["strength"]: panel.at(place) for place in places}
        label = None if value is None else f"{lines} {value}"
        curve(axes, panel, at, own, {"color": colour, "marker": marker, "markersize": 4, "label": label})
        controls = {dose: [c for v in names if (c := results.study["controls"].get(v))] for dose, names in own.items()}
        curve(axes, panel, at, controls, {"color": GREY, "linestyle": ":", "linewidth": 1}, band=False)
    baseline = at[results.study["baseline"], panel.prompts, panel.measure]
    if baseline["n"]:
        axes.axhline(baseline["value"], color="black", linestyle="--", linewidth=1)
    low, high = limits(panel, at, results)
    margin = 0.04 * (high - low)
    axes.set(xlabel="strength", title=panel.title, ylim=(low - margin, high + margin))
    doses = panel.values("strength")
    if min(np.diff(doses), default=0) >= (doses[-1] - doses[0]) / 10:
        axes.set_xticks(doses, [f"{dose:g}" for dose in doses])
    if panel.binary:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if lines:
        figure.legend(loc="outside lower center", ncols=min(4, len(values)), frameon=False, handlelength=1.4, columnspacing=1)
    return plain(figure, axes)


def curve(
    axes: Axes, panel: Panel, at: Mapping[Cell, dict], variants: Mapping[float, list[str]], look: dict, band: bool = True
) -> None:
    """One line over the strengths at which anything was measured."""
    measured = {dose: [at[v, panel.prompts, panel.measure] for v in names] for dose, names in variants.items()}
    known = {dose: own for dose, cells in measured.items() if (own := [cell for cell in cells if cell["n"]])}
    axes.plot(list(known), [fmean(cell["value"] for cell in cells) for cells in known.values()], **look)
    spread = {d: [c for c in cells if c["low"] is not None] for d, cells in known.items()}
    if band and all(spread.values()):
        low, high = ([end(c[name] for c in cells) for cells in spread.values()] for end, name in ((min, "low"), (max, "high")))
        axes.fill_between(list(spread), low, high, color=look["color"], alpha=0.15, linewidth=0)


def limits(panel: Panel, at: Mapping[Cell, dict], results: Results) -> tuple[float, float]:
    """One scale for all figures of a measure: 0 to 1 for rates, otherwise from the lowest to the highest interval's end."""
    if panel.binary:
        return 0.0, 1.0
    cells = [at[v, s, panel.measure] for v, s in product(results.variants, results.sets)]
    known = [cell[end] for cell in cells for end in ("value", "low", "high") if cell[end] is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
