"""What a study found: its rows to estimates, differences and p-values, and the variant that it recommends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product

from scipy.stats import mannwhitneyu

from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.program.condition import fires
from nnsteer.report.look import difference, interval, number
from nnsteer.statistics import Difference, compare, estimate, holm, wilson

Values = Mapping[str, float]
"""A value per prompt, NaN where it could not be had."""
Cell = tuple[str, str, str]
"""Variant, set and measure."""


@dataclass(frozen=True)
class Results:
    """A study's folder, read."""

    study: dict
    """study.json."""
    values: Mapping[Cell, Values]
    completions: tuple[dict, ...]
    """The lines of completions.jsonl; none where the study generates nothing."""
    conditions: Mapping[str, dict]
    """Each condition's threshold and its scores on either side of the tune and test prompts, by name."""
    planes: Mapping[str, dict]
    """The texts of each direction in a plane, by name."""

    @property
    def variants(self) -> tuple[str, ...]:
        """Their names, in the study's order."""
        return tuple(variant["name"] for variant in self.study["variants"])

    @property
    def sets(self) -> tuple[str, ...]:
        """Their names, in the study's order."""
        return tuple(prompts["name"] for prompts in self.study["sets"])

    @property
    def measures(self) -> dict[str, bool]:
        """Which are binary, by name."""
        return {measure["name"]: measure["binary"] for measure in self.study["measures"]}

    @property
    def grid(self) -> dict[str, dict]:
        """The axes of the variants that lie in a grid, by name: neither the baseline nor a control."""
        aside = {self.study["baseline"], *self.study["controls"].values()}
        return {v["name"]: v["axes"] for v in self.study["variants"] if v["name"] not in aside}


PLACE = ("variant", "set", "prompt")
"""The columns that name an answer of a study."""


def read(folder: Folder) -> Results:
    """What lies in a study's folder, finished or not. Raises UserError where there is no study."""
    if not folder.has("study.json"):
        raise UserError(f"{folder.path}: holds no study.json; give the folder of a study")
    values: dict[Cell, dict[str, float]] = {}
    for row in folder.read_lines("rows.jsonl", (*PLACE, "measure")):
        missing = row["value"] is None or math.isnan(row["value"])
        values.setdefault((row["variant"], row["set"], row["measure"]), {})[row["prompt"]] = math.nan if missing else row["value"]
    study = folder.read_json("study.json")
    scores, planes = ({name: folder.read_json(file) for name, file in study[kind].items()} for kind in ("scores", "planes"))
    return Results(study, values, tuple(folder.read_lines("completions.jsonl", PLACE)), scores, planes)


def summarise(results: Results) -> dict:
    """The content of summary.json."""
    cells = [cell for pair in product(results.measures, results.sets) for cell in family(results, *pair)]
    expected = len(results.variants) * len(results.measures) * sum(prompts["n"] for prompts in results.study["sets"])
    return {
        "rows": {"there": sum(map(len, results.values.values())), "expected": expected},
        "cells": cells,
        "recommended": recommend(results, cells),
        "conditions": {
            name: {split: condition(point, split) for split in point["scores"]} for name, point in results.conditions.items()
        },
    }


def family(results: Results, measure: str, prompts: str) -> list[dict]:
    """One measure on one set: every variant's estimate and its differences from the baseline and from its random control. Each
    sort of difference is a family of its own for Holm's correction."""
    binary = results.measures[measure]
    values = {variant: results.values.get((variant, prompts, measure), {}) for variant in results.variants}
    baseline, controls = results.study["baseline"], results.study["controls"]
    differences = {
        "against_baseline": {v: paired(values[v], values[baseline], binary) for v in values if v != baseline},
        "against_control": {v: paired(values[v], values[c], binary) for v, c in controls.items()},
    }
    corrected = {sort: holm_of(family) for sort, family in differences.items()}
    cells = []
    for variant, own in values.items():
        failed = sum(map(math.isnan, own.values()))
        cell = {"variant": variant, "set": prompts, "measure": measure, "failed": failed}
        cell |= bare(asdict(estimate(list(own.values()), binary)))
        for sort in differences:
            cell[sort] = corrected[sort].get(variant)
        cells.append(cell)
    return cells


def paired(values: Values, others: Values, binary: bool) -> Difference:
    """`values` against `others` on the prompts of both."""
    both = [prompt for prompt in values if prompt in others]
    return compare([values[prompt] for prompt in both], [others[prompt] for prompt in both], binary)


def holm_of(differences: Mapping[str, Difference]) -> dict[str, dict]:
    """Each difference as it is written, with the p-value that holds for all of them at once."""
    corrected = holm([difference.p for difference in differences.values()])
    return {name: bare(asdict(d) | {"p_holm": p}) for (name, d), p in zip(differences.items(), corrected, strict=True)}


def bare(numbers: dict) -> dict:
    """Null for NaN, which JSON does not know."""
    return {name: None if math.isnan(value) else float(value) if name != "n" else value for name, value in numbers.items()}


def by_cell(cells: list[dict]) -> dict[Cell, dict]:
    """The summary's cells by variant, set and measure."""
    return {(cell["variant"], cell["set"], cell["measure"]): cell for cell in cells}


def recommend(results: Results, cells: list[dict]) -> dict | None:
    """The variant with the highest effect (the lowest where `prefer` is "lower") whose drift keeps the limit, and why. Of equal
    ones it has the least drift."""
    wish = results.study.get("recommend")
    if not wish:
        return None
    at, binary = by_cell(cells), results.measures
    for measure, prompts in ((wish["effect"], wish["on"]), (wish["drift"], wish["drift_on"])):
        if measure not in binary or prompts not in results.sets:
            raise UserError(
                f"recommend: {measure} on {prompts} is not in this study; it has {', '.join(binary)} on {', '.join(results.sets)}"
            )
    effect = {v: at[v, wish["on"], wish["effect"]] for v in results.grid}
    drift = {v: at[v, wish["drift_on"], wish["drift"]] for v in results.grid}
    measured = [v for v in results.grid if effect[v]["n"] and drift[v]["n"]]
    within = [v for v in measured if drift[v]["value"] <= wish["limit"]]
    limit = (
        f"{len(within)} of {len(measured)} variants keep {wish['drift']} on {wish['drift_on']} at or under "
        f"{number(wish['limit'], binary[wish['drift']])}."
    )
    if not within:
        return {"variant": None, "why": limit}
    lower = wish.get("prefer") == "lower"
    best = min(within, key=lambda v: (effect[v]["value"] * (1 if lower else -1), drift[v]["value"]))
    why = (
        f"{limit} Of these it has the {'lowest' if lower else 'highest'} {wish['effect']} on {wish['on']}: "
        f"{interval(effect[best], binary[wish['effect']])}. "
        f"Its {wish['drift']} on {wish['drift_on']}: {interval(drift[best], binary[wish['drift']])}."
    )
    for sort, name in (("against_baseline", "the baseline"), ("against_control", "its random control")):
        if effect[best][sort]:
            why += f" Against {name}: {difference(effect[best][sort], binary[wish['effect']])}."
    return {"variant": best, "why": why}


def condition(point: dict, split: str) -> dict:
    """How well a condition tells its sides apart on a split: the area under the ROC curve, and the rates at which it fires."""
    sides = point["scores"][split]
    above = point["fires_when"] == "above"
    greater = mannwhitneyu(sides["positive"], sides["negative"]).statistic / math.prod(map(len, sides.values()))
    fired = {side: [fires(score, point["threshold"], point["fires_when"]) for score in own] for side, own in sides.items()}
    rates = {side: asdict(wilson(sum(own), len(own))) for side, own in fired.items()}
    return {"auc": float(greater if above else 1 - greater), "fires": rates}
