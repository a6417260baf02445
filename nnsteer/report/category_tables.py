"""The tables of a categories run. Rates stand with their 95 % intervals, and n with the prompts that they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from nnsteer.report.look import NONE, difference, ends, interval, number
from nnsteer.report.section import Table

MEASURED = {"f1": False, "harmful": True, "harmless": True, "seconds": False}  # by number of examples; whether it is a rate
BALANCED = (
    "Each told from all the others, its point chosen on the tune split. F1 counts the category as often as the others "
    "together, as "
    "the paper's data does; its interval is a bootstrap over prompts."
)
Entries = Sequence[Mapping[str, Any]]


def share(cell: Mapping[str, Any] | None) -> str:
    """`97.8 % [95.2, 99.0]`, and what was broken where something was."""
    broken = f", {number(cell['broken'], True)} broken" if cell and cell.get("broken") else ""
    return interval(cell) + broken


def ns(*cells: Mapping[str, Any] | None) -> str:
    """How many prompts each rate is of: `6 / 24`."""
    return " / ".join(NONE if cell is None else f"{cell['n']}" for cell in cells)


def conditions(found: Mapping[str, Any]) -> Table:
    """A row for each condition."""
    rows = []
    for target, facts in found.items():
        side = f"layer {facts['layer']} {'>' if facts['fires_when'] == 'above' else '<='} {facts['threshold']:.3g}"
        rates = [facts[key] for key in ("own", "others", "unseen")]
        f1 = [f"{facts['f1']['tune']['value']:.3f}", interval(facts["f1"]["test"], False)]
        rows.append([target, side, *f1, *map(share, rates), ns(*rates)])
    return Table(("", "fires at", "F1, tune", "F1, test", "fires on its own", "on the others", "on unseen ones", "n"), rows)


def one(entries: Entries) -> Table:
    """Each rule on its own category and on the others."""
    rows = [
        [
            entry["rule"],
            *(share(entry[key]) for key in ("own", "own_before", "others", "others_before")),
            ns(entry["own"], entry["others"]),
        ]
        for entry in entries
    ]
    return Table(("rule", "refused, its own", "before", "the others", "before", "n"), rows)


def either(entries: Entries) -> Table:
    """Two rows a rule."""
    rows = [
        [
            entry["rule"],
            part["target"],
            share(part["both"]),
            share(part["alone"]),
            difference(part["gap"]),
            share(entry["others"]),
            ns(part["both"], entry["others"]),
        ]
        for entry in entries
        for part in entry["parts"]
    ]
    return Table(("rule", "on", "by this rule", "by its own", "gap", "on the others", "n"), rows)


def together(entries: Entries) -> Table:
    """Each rule on its own prompts, then both on the rest."""
    rows = []
    for entry in entries:
        spots = [(part["target"], part) for part in entry["parts"]]
        spots += [(f"other {side} prompts", {"alone": None} | rest) for side, rest in entry["others"].items()]
        for name, part in spots:
            cells = [share(part[key]) for key in ("before", "alone", "both")]
            rows.append([entry["rule"], name, *cells, difference(part["gap"]), ns(part["both"])])
    return Table(("rules", "on", "before", "one rule", "both", "gap", "n"), rows)


def constraining(entries: Entries) -> Table:
    """The rule and the words, domain by domain."""
    rows = []
    for entry in entries:
        for by, way in (("rule", "rule"), ("told", "words")):
            cells = [entry[by][spot] for spot in ("inside", "outside", "unseen")]
            rows.append([entry["domain"], way, *map(share, cells), ns(*cells)])
    return Table(("domain", "by", "refused in it", "outside it", "unseen", "n"), rows)


def distance(found: Mapping[str, Any]) -> Table:
    """The correlation of each experiment."""
    rows = []
    for experiment, facts in found.items():
        r, means = facts["correlation"], facts["of_means"]
        rest = [NONE] * 3 if r is None else [f"{r['r']:.2f}", ends(r["low"], r["high"], False), f"{r['rho']:.2f}"]
        mean = NONE if means is None else f"{means['r']:.2f} {ends(means['low'], means['high'], False)}"
        rows.append([experiment, str(len(facts["points"])), *rest, mean])
    return Table(("rules", "n, points", "Pearson's r", "95 % interval", "Spearman's", "r of the rules' means"), rows)


def saturation(found: Mapping[str, Any]) -> Table:
    """A row for each number of examples: means over the draws."""
    by_size: dict[int, list[Mapping[str, Any]]] = {}
    for point in found["points"]:
        by_size.setdefault(point["n"], []).append(point)
    rows = [
        [str(n), *(ranged([point[key] for point in own], binary) for key, binary in MEASURED.items()), str(len(own))]
        for n, own in by_size.items()
    ]
    return Table(("examples", "F1", "harmful refused", "harmless refused", "seconds", "n, draws"), rows)


def fits(found: Mapping[str, Any]) -> str:
    """The curves that were fitted to it."""
    said = [
        f"{what} = {fit['top']:.3f} - {fit['fall']:.3g} n^-{fit['rate']:.2f}"
        for what, fit in (("F1", found["fits"]["f1"]), ("harmful refused", found["fits"]["harmful"]))
        if fit
    ]
    if time := found["time"]:
        reach = ends(1000 * time["low"], 1000 * time["high"], False)
        said.append(f"seconds = {time['intercept']:.3f} + {1000 * time['slope']:.2f} n / 1000 {reach}, R² {time['r2']:.3f}")
    return "; ".join(said) or "none"


def ranged(values: Sequence[float], binary: bool) -> str:
    """The mean, with the smallest and the largest value."""
    return interval({"value": fmean(values), "low": min(values), "high": max(values)}, binary)


def published(rows: Entries) -> Table:
    """A row for each habit."""
    cells = [
        [
            row["name"],
            *(f"{row[key]:.3f}" for key in ("f1_tune", "f1_test")),
            share(row["harmful"]),
            share(row["harmless"]),
            ns(row["harmful"], row["harmless"]),
        ]
        for row in rows
    ]
    return Table(("", "F1, tune", "F1, test", "harmful refused", "harmless refused", "n"), cells)
