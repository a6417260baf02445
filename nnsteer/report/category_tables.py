"""The tables of a categories run. Rates stand with their 95 % intervals, and n with the prompts
that they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from nnsteer.report.look import NONE, difference, ends, interval, number
from nnsteer.report.section import Table

Entries = Sequence[Mapping[str, Any]]
Cell = Mapping[str, Any] | None


def share(cell: Cell) -> str:
    """`97.8 % [95.2, 99.0]`, and what was broken where something was."""
    broken = f", {number(cell['broken'], True)} broken" if cell and cell.get("broken") else ""
    return interval(cell) + broken


def ns(*cells: Cell) -> str:
    """How many prompts each rate is of: `6 / 24`."""
    return " / ".join(NONE if cell is None else f"{cell['n']}" for cell in cells)


def conditions(points: Mapping[str, Any]) -> Table:
    """A row for each condition."""
    rows = []
    for target, facts in points.items():
        sign = ">" if facts["fires_when"] == "above" else "<="
        point = f"layer {facts['layer']} {sign} {facts['threshold']:.3g}"
        f1 = [f"{facts['f1']['tune']['value']:.3f}", interval(facts["f1"]["test"], False)]
        rates = [facts[key] for key in ("own", "others", "unseen")]
        rows.append([target, point, *f1, *map(share, rates), ns(*rates)])
    fires = "fires on its own", "on the others", "on unseen ones"
    return Table(("", "fires at", "F1, tune", "F1, test", *fires, "n"), rows)


def against(entries: Entries) -> Table:
    """Each rule on its own category and on the others."""
    rows = []
    for entry in entries:
        rates = [share(entry[key]) for key in ("own", "own_before", "others", "others_before")]
        rows.append([entry["rule"], *rates, ns(entry["own"], entry["others"])])
    return Table(("rule", "refused, its own", "before", "the others", "before", "n"), rows)


def either(entries: Entries) -> Table:
    """Two rows a rule."""
    rows = []
    for entry in entries:
        for part in entry["parts"]:
            cells = [share(part["both"]), share(part["alone"]), difference(part["gap"])]
            cells += [share(entry["others"]), ns(part["both"], entry["others"])]
            rows.append([entry["rule"], part["target"], *cells])
    return Table(("rule", "on", "by this rule", "by its own", "gap", "on the others", "n"), rows)


def together(entries: Entries) -> Table:
    """Each rule on its own prompts, then both on the rest."""
    rows = []
    for entry in entries:
        spots = {part["target"]: part for part in entry["parts"]}
        spots |= {f"other {side} prompts": rest for side, rest in entry["others"].items()}
        for name, spot in spots.items():
            rates = [share(spot.get(key)) for key in ("before", "alone", "both")]
            rows.append([entry["rule"], name, *rates, difference(spot["gap"]), ns(spot["both"])])
    return Table(("rules", "on", "before", "one rule", "both", "gap", "n"), rows)


def constraining(entries: Entries) -> Table:
    """The rule and the words, domain by domain."""
    rows = []
    for entry in entries:
        for by, way in (("rule", "rule"), ("told", "words")):
            rates = entry[by].values()
            rows.append([entry["domain"], way, *map(share, rates), ns(*rates)])
    return Table(("domain", "by", "refused in it", "outside it", "unseen", "n"), rows)


def distance(effects: Mapping[str, Any]) -> Table:
    """The correlation of each experiment."""
    rows = []
    for experiment, facts in effects.items():
        cells, means = [NONE] * 3, NONE
        if r := facts["correlation"]:
            cells = [f"{r['r']:.2f}", ends(r["low"], r["high"], False), f"{r['rho']:.2f}"]
        if r := facts["of_means"]:
            means = f"{r['r']:.2f} {ends(r['low'], r['high'], False)}"
        rows.append([experiment, f"{len(facts['points'])}", *cells, means])
    r = "Pearson's r", "95 % interval", "Spearman's", "r of the rules' means"
    return Table(("rules", "n, points", *r), rows)


def saturation(examples: Mapping[str, Any]) -> Table:
    """A row for each number of examples: means over the draws, with the smallest and largest."""
    rows = []
    for n in dict.fromkeys(point["n"] for point in examples["points"]):
        draws = [point for point in examples["points"] if point["n"] == n]
        cells = []
        for key in ("f1", "harmful", "harmless", "seconds"):
            values = [point[key] for point in draws]
            cell = {"value": fmean(values), "low": min(values), "high": max(values)}
            cells.append(interval(cell, key in ("harmful", "harmless")))
        rows.append([f"{n}", *cells, f"{len(draws)}"])
    measured = "F1", "harmful refused", "harmless refused", "seconds"
    return Table(("examples", *measured, "n, draws"), rows)


def fits(examples: Mapping[str, Any]) -> str:
    """The curves that were fitted to it."""
    said = []
    for what, key in (("F1", "f1"), ("harmful refused", "harmful")):
        if fit := examples["fits"][key]:
            said.append(f"{what} = {fit['top']:.3f} - {fit['fall']:.3g} n^-{fit['rate']:.2f}")
    if time := examples["time"]:
        reach = ends(1000 * time["low"], 1000 * time["high"], False)
        slope = f"{1000 * time['slope']:.2f} n / 1000 {reach}"
        said.append(f"seconds = {time['intercept']:.3f} + {slope}, R² {time['r2']:.3f}")
    return "; ".join(said) or "none"


def published(entries: Entries) -> Table:
    """A row for each habit."""
    rows = []
    for entry in entries:
        f1 = [f"{entry[key]:.3f}" for key in ("f1_tune", "f1_test")]
        rates = entry["harmful"], entry["harmless"]
        rows.append([entry["name"], *f1, *map(share, rates), ns(*rates)])
    return Table(("", "F1, tune", "F1, test", "harmful refused", "harmless refused", "n"), rows)
