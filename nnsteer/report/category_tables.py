"""A categories run's tables, each with what it shows: the same in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from nnsteer.report.look import NONE, ends, gap, number

MEASURED = {"f1": False, "harmful": True, "harmless": True, "seconds": False}  # by number of examples; whether it is a rate


@dataclass(frozen=True)
class Section:
    """One experiment: `key` is what its figures are grouped by."""

    key: str
    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def sections(summary: Mapping[str, Any]) -> Iterator[Section]:
    """Every experiment, in the order of the page."""
    yield conditions("conditions", "Conditions", summary["conditions"])
    yield Section(
        "adding", "Refusing one category", "The paper's Figure 7, left. In brackets 95 % Wilson intervals; before: not steered.",
        ("rule", "in its category", "before", "in the others", "before"), [one(entry) for entry in summary["adding"]],
    )  # fmt: skip
    yield Section(
        "either", "Refusing either of two", "The paper's Figure 8, left. The gap is to the category's own rule, by prompt.",
        ("rule", "on", "by this rule", "by its own", "gap", "on the others"), list(either(summary["either"])),
    )  # fmt: skip
    if summary["kinds"]:
        yield conditions("kinds", "Conditions of the refused kinds", summary["kinds"])
    if summary["removing"]:
        yield Section(
            "removing", "Answering one kind that the model refuses",
            "The paper's Figure 7, right. Of the harmful prompts, the kinds that the model mostly refuses; and such categories.",
            ("rule", "its kind refused", "before", "the others", "before"), [one(entry) for entry in summary["removing"]],
        )  # fmt: skip
    if summary["together"]:
        yield Section(
            "together", "Two rules at once", "The paper's Figure 8, right. The gap is between both rules and the one alone.",
            ("rules", "on", "before", "one rule", "both", "gap"), list(together(summary["together"])),
        )  # fmt: skip
    yield Section(
        "constraining", "Answering one domain alone",
        "The paper's Figure 9: `if not DOMAIN then refuse`, beside telling the model so in its system turn. Unseen: categories "
        "that no condition was fitted on.",
        ("domain", "by", "refused in it", "outside it", "unseen"), list(constraining(summary["constraining"])),
    )  # fmt: skip
    yield Section(
        "distance", "Effect and distance",
        "Each point is a rule and a category that it is not about: how far that lies from the rule's (mean cosine distance of "
        "fit from test prompts, embedded by the model's last block), and how much more of it is refused than unsteered. Points "
        "that share a rule are not independent, so the interval is too narrow. The paper's Figure 9c has the means, one point a "
        "rule, of constraining.",
        ("rules", "points", "Pearson's r", "95 % interval", "Spearman's", "r of the rules' means"),
        list(distance(summary["distance"])),
    )  # fmt: skip
    yield saturation(summary["saturation"])
    if summary["published"]:
        yield published(summary["published"])


def share(cell: Mapping[str, Any] | None) -> str:
    """`97.8 % [95.2, 99.0]`, and what was broken where something was."""
    if cell is None:
        return NONE
    broken = f", {number(cell['broken'], True)} broken" if cell.get("broken") else ""
    return f"{number(cell['value'], True)} {ends(cell['low'], cell['high'], True)}{broken}"


def conditions(key: str, title: str, found: Mapping[str, Any]) -> Section:
    """A row for each condition."""
    unseen = any(facts["unseen"] for facts in found.values())
    rows = []
    for target, facts in found.items():
        f1 = facts["f1"]["test"]
        side = f"layer {facts['layer']} {'>' if facts['fires_when'] == 'above' else '<='} {facts['threshold']:.3g}"
        tune, test = f"{facts['f1']['tune']['value']:.3f}", f"{f1['value']:.3f} {ends(f1['low'], f1['high'], False)}"
        row = [target, side, tune, test, share(facts["own"]), share(facts["others"])]
        rows.append([*row, share(facts["unseen"])] if unseen else row)
    note = (
        "Each told from all the others, its point chosen on the tune split. F1 counts the category as often as the others "
        "together, as the paper's data does; its interval is a bootstrap over prompts."
    )
    columns = (
        "",
        "fires at",
        "F1, tune",
        "F1, test",
        "fires on its own",
        "on the others",
        *(["on unseen ones"] if unseen else []),
    )
    return Section(key, title, note, columns, rows)


def one(entry: Mapping[str, Any]) -> list[str]:
    """A rule on its own category and on the others."""
    return [entry["rule"], *(share(entry[key]) for key in ("own", "own_before", "others", "others_before"))]


def difference(found: Mapping[str, Any]) -> str:
    """`+1.9 points [-0.5, 4.3]`."""
    return f"{gap(found['value'], True)} {ends(found['low'], found['high'], True)}"


def either(entries: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Two rows a rule."""
    for entry in entries:
        for part in entry["parts"]:
            cells = [part["target"], share(part["both"]), share(part["alone"]), difference(part["gap"])]
            yield [entry["rule"], *cells, share(entry["others"])]


def together(entries: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Each rule on its own prompts, then both on the rest."""
    for entry in entries:
        for part in entry["parts"]:
            cells = [share(part[key]) for key in ("before", "alone", "both")]
            yield [entry["rule"], part["target"], *cells, difference(part["gap"])]
        for side, rest in entry["others"].items():
            yield [
                entry["rule"],
                f"other {side} prompts",
                share(rest["before"]),
                NONE,
                share(rest["both"]),
                difference(rest["gap"]),
            ]


def constraining(entries: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """The rule and the words, domain by domain."""
    for entry in entries:
        for by, way in (("rule", "rule"), ("told", "words")):
            yield [entry["domain"], way, *(share(entry[by][spot]) for spot in ("inside", "outside", "unseen"))]


def distance(found: Mapping[str, Any]) -> Iterator[list[str]]:
    """The correlation of each experiment."""
    for experiment, facts in found.items():
        r, means = facts["correlation"], facts["of_means"]
        rest = [NONE] * 3 if r is None else [f"{r['r']:.2f}", ends(r["low"], r["high"], False), f"{r['rho']:.2f}"]
        mean = NONE if means is None else f"{means['r']:.2f} {ends(means['low'], means['high'], False)}"
        yield [experiment, str(len(facts["points"])), *rest, mean]


def saturation(found: Mapping[str, Any]) -> Section:
    """A row for each number of examples: means over the draws."""
    by_size: dict[int, list[Mapping[str, Any]]] = {}
    for point in found["points"]:
        by_size.setdefault(point["n"], []).append(point)
    rows = []
    for n, own in by_size.items():
        cells = [ranged([point[key] for point in own], binary) for key, binary in MEASURED.items()]
        rows.append([str(n), *cells])
    fits = [
        f"{what} = {fit['top']:.3f} - {fit['fall']:.3g} n^-{fit['rate']:.2f}"
        for what, fit in (("F1", found["fits"]["f1"]), ("harmful refused", found["fits"]["harmful"]))
        if fit
    ]
    if time := found["time"]:
        reach = ends(1000 * time["low"], 1000 * time["high"], False)
        fits.append(f"seconds = {time['intercept']:.3f} + {1000 * time['slope']:.2f} n / 1000 {reach}, R² {time['r2']:.3f}")
    note = (
        "The paper's Figure 6: the harmful condition by the number of its examples a side; means of three draws with the range. "
        f"Fits: {'; '.join(fits) or 'none'}."
    )
    return Section("saturation", "Saturation", note, ("examples", "F1", "harmful refused", "harmless refused", "seconds"), rows)


def ranged(values: Sequence[float], binary: bool) -> str:
    """The mean, with the smallest and the largest value."""
    return f"{number(fmean(values), binary)} {ends(min(values), max(values), binary)}"


def published(rows: Sequence[Mapping[str, Any]]) -> Section:
    """A row for each habit."""
    cells = []
    for row in rows:
        f1 = [f"{row[key]:.3f}" for key in ("f1_tune", "f1_test")]
        cells.append([row["name"], *f1, share(row["harmful"]), share(row["harmless"])])
    note = "The harmful condition, each habit of CAST's code alone and all together, at one dose; points from the tune split."
    columns = ("", "F1, tune", "F1, test", "harmful refused", "harmless refused")
    return Section("published", "What the published habits cost", note, columns, cells)
