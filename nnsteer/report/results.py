"""What a study found: its rows to estimates, differences and p-values, and what it recommends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from statistics import fmean

from scipy.stats import mannwhitneyu

from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.program.condition import fires
from nnsteer.report.look import difference, interval, number
from nnsteer.statistics import compare, estimate, holm, wilson

Values = Mapping[str, float]
"""A value per prompt, the mean of its samples; NaN where it could not be had."""
Cell = tuple[str, str, str]
"""Variant, set and measure."""
PLACE = ("variant", "set", "prompt", "sample")
"""The columns that name an answer of a study."""


@dataclass(frozen=True)
class Family:
    """One measure on one set: a cell of summary.json for each variant."""

    measure: str
    prompts: str
    binary: bool
    cells: Mapping[str, dict]

    @property
    def title(self) -> str:
        """As it is called in print and among files."""
        return f"{self.measure} on {self.prompts}"


@dataclass(frozen=True)
class Results:
    """A study's folder, read, and what follows from it."""

    study: dict
    """study.json."""
    values: Mapping[Cell, Values]
    completions: tuple[dict, ...]
    """The lines of completions.jsonl; none where the study generates nothing."""
    conditions: Mapping[str, dict]
    """Each condition's threshold and its scores on either side of each split, by name."""
    planes: Mapping[str, dict]
    """The texts of each direction in a plane, by name."""

    @cached_property
    def grid(self) -> dict[str, dict]:
        """The axes of the variants that are neither the baseline nor a control, by name."""
        aside = {self.study["baseline"], *self.study["controls"].values()}
        return {v["name"]: v["axes"] for v in self.study["variants"] if v["name"] not in aside}

    @cached_property
    def families(self) -> dict[tuple[str, str], Family]:
        """By measure and set."""
        pairs = product(self.study["measures"], self.study["sets"])
        return {(m["name"], s["name"]): family(self, m, s["name"]) for m, s in pairs}

    @property
    def sets(self) -> list[str]:
        """Their names, in the study's order."""
        return [prompts["name"] for prompts in self.study["sets"]]

    @cached_property
    def recommended(self) -> dict | None:
        """The variant that is recommended, and why; None where no recommendation is wished."""
        return recommend(self) if self.study.get("recommend") else None

    @property
    def best(self) -> str | None:
        """The name of the variant that is recommended, if any."""
        return self.recommended["variant"] if self.recommended else None


def read(folder: Folder) -> Results:
    """What lies in a study's folder, finished or not. Raises UserError where there is no study."""
    if not folder.has("study.json"):
        raise UserError(f"{folder.path}: holds no study.json; give the folder of a study")
    samples: dict[Cell, dict[str, list[float]]] = {}
    for row in folder.read_lines("rows.jsonl", (*PLACE, "measure")):
        cell = samples.setdefault((row["variant"], row["set"], row["measure"]), {})
        had = row["value"] is not None and not math.isnan(row["value"])
        cell.setdefault(row["prompt"], []).extend([row["value"]] if had else [])
    values = {
        cell: {p: mean(own) for p, own in prompts.items()} for cell, prompts in samples.items()
    }
    study, answers = folder.read_json("study.json"), folder.read_lines("completions.jsonl", PLACE)
    conditions = {name: folder.read_json(file) for name, file in study["scores"].items()}
    planes = {name: folder.read_json(file) for name, file in study["planes"].items()}
    return Results(study, values, tuple(answers), conditions, planes)


def mean(samples: list[float]) -> float:
    """NaN of none."""
    return fmean(samples) if samples else math.nan


def summarise(results: Results) -> dict:
    """The content of summary.json."""
    prompts = sum(prompts["n"] for prompts in results.study["sets"])
    expected = len(results.study["variants"]) * len(results.study["measures"]) * prompts
    return {
        "rows": {"there": sum(map(len, results.values.values())), "expected": expected},
        "cells": [cell for one in results.families.values() for cell in one.cells.values()],
        "recommended": results.recommended,
        "conditions": {
            name: {split: condition(point, split) for split in point["scores"]}
            for name, point in results.conditions.items()
        },
    }


def family(results: Results, measure: dict, prompts: str) -> Family:
    """Every variant's estimate and its differences from the baseline and from its random control.
    Each sort of difference is a family of its own for Holm's correction."""
    name, binary, baseline = measure["name"], measure["binary"], results.study["baseline"]
    variants = [variant["name"] for variant in results.study["variants"]]
    values = {v: results.values.get((v, prompts, name), {}) for v in variants}
    from_baseline = {v: (own, values[baseline]) for v, own in values.items() if v != baseline}
    from_control = {v: (values[v], values[c]) for v, c in results.study["controls"].items()}
    against, against_control = compared(from_baseline, binary), compared(from_control, binary)
    cells = {}
    for variant, own in values.items():
        failed = sum(map(math.isnan, own.values()))
        changes = {
            "against_baseline": against.get(variant),
            "against_control": against_control.get(variant),
        }
        names = {"variant": variant, "set": prompts, "measure": name, "failed": failed}
        cells[variant] = names | nan_to_null(asdict(estimate(list(own.values()), binary))) | changes
    return Family(name, prompts, binary, cells)


def compared(pairs: Mapping[str, tuple[Values, Values]], binary: bool) -> dict[str, dict]:
    """How far the first of each pair lies above the second on the prompts of both, as it is
    written, with the p-value that holds for all pairs at once."""
    differences = {}
    for name, (values, others) in pairs.items():
        both = [prompt for prompt in values if prompt in others]
        own, other = ([side[prompt] for prompt in both] for side in (values, others))
        differences[name] = asdict(compare(own, other, binary))
    corrected = holm([difference["p"] for difference in differences.values()])
    found = zip(differences.items(), corrected, strict=True)
    return {name: nan_to_null(difference | {"p_holm": p}) for (name, difference), p in found}


def nan_to_null(numbers: dict) -> dict:
    """Null for NaN, which JSON does not know."""
    return {
        name: None if math.isnan(value) else value if name == "n" else float(value)
        for name, value in numbers.items()
    }


def wanted(results: Results) -> tuple[Family, Family]:
    """The effect and the drift by which a variant is recommended."""
    wish, places = results.study["recommend"], results.families
    pairs = (wish["effect"], wish["on"]), (wish["drift"], wish["drift_on"])
    for measure, prompts in pairs:
        if (measure, prompts) not in places:
            measures = ", ".join(measure["name"] for measure in results.study["measures"])
            has = f"it has {measures} on {', '.join(results.sets)}"
            raise UserError(f"recommend: {measure} on {prompts} is not in this study; {has}")
    return places[pairs[0]], places[pairs[1]]


def recommend(results: Results) -> dict:
    """The variant with the highest effect (the lowest where `prefer` is "lower") whose drift keeps
    the limit, and why. Of equal ones it has the least drift."""
    (effect, drift), wish = wanted(results), results.study["recommend"]
    measured = [v for v in results.grid if effect.cells[v]["n"] and drift.cells[v]["n"]]
    within = [v for v in measured if drift.cells[v]["value"] <= wish["limit"]]
    limit = f"{drift.title} at or under {number(wish['limit'], drift.binary)}"
    why = f"{len(within)} of {len(measured)} variants keep {limit}."
    if not within:
        return {"variant": None, "why": why}
    sign, most = (1, "lowest") if wish.get("prefer") == "lower" else (-1, "highest")
    best = min(within, key=lambda v: (sign * effect.cells[v]["value"], drift.cells[v]["value"]))
    cell, cost = effect.cells[best], interval(drift.cells[best], drift.binary)
    why += f" Of these it has the {most} {effect.title}: {interval(cell, effect.binary)}."
    why += f" Its {drift.title}: {cost}."
    if change := cell["against_baseline"]:
        why += f" Against the baseline: {difference(change, effect.binary)}."
    if change := cell["against_control"]:
        why += f" Against its random control: {difference(change, effect.binary)}."
    return {"variant": best, "why": why}


def condition(point: dict, split: str) -> dict:
    """How well a condition tells its sides apart on a split: the area under the ROC curve, and the
    rates at which it fires."""
    sides, fires_when = point["scores"][split], point["fires_when"]
    pairs = len(sides["positive"]) * len(sides["negative"])
    greater = float(mannwhitneyu(sides["positive"], sides["negative"]).statistic) / pairs
    rates = {}
    for side, scores in sides.items():
        fired = sum(fires(score, point["threshold"], fires_when) for score in scores)
        rates[side] = asdict(wilson(fired, len(scores)))
    return {"auc": greater if fires_when == "above" else 1 - greater, "fires": rates}
