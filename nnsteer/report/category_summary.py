"""The content of a categories run's summary.json, experiment by experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from nnsteer.folder import Folder
from nnsteer.measure.refusal import is_refused
from nnsteer.report.category_numbers import (
    Answers,
    Place,
    conditions,
    correlation,
    line,
    plateau,
    read_answers,
)
from nnsteer.study.rows import read_rows
from nnsteer.texts.refusal import SIDES

BASE, REFUSE, COMPLY, RANDOM = "not steered", "always refuse", "always comply", "random direction"
SETS = {"seen test": "seen", "unseen test": "unseen", "refused test": "harmful"}
REQUESTS = {f"{side} test": side for side in SIDES}
Places = Mapping[str, Sequence[Place]]
"""By set."""


def summarise(folder: Folder) -> dict[str, Any]:
    """Every number of the page."""
    points, kinds = folder.read_json("categories.json"), folder.read_json("kinds.json")
    answers, axes = read_answers(folder, SETS), folder.read_json("variants.json")
    told = {axes[name]["domain"]: name for name in axes}
    rates = {variant: answers.rates(variant) for variant, _ in answers.refused}
    places = {side: [p for p in answers.places if p[0] == side] for side in SETS.values()}
    rules = {
        experiment: ["; ".join(texts) for texts in sets]
        for experiment, sets in folder.read_json("experiments.json").items()
    }
    adding = dict(zip(rules["adding"], points, strict=True))
    constraining = dict(zip(rules["constraining"], told, strict=True))
    pairs = zip(rules["either"], pairwise(told), strict=True)
    answering = [("harmful", rule) for rule in rules["removing"]]
    answering += [("seen", rule) for rule in rules["answering"]]
    return {
        "conditions": conditions(points),
        "kinds": conditions(kinds),
        "rates": {v: of_variant for v, of_variant in rates.items() if v not in told.values()},
        "told": {variant: rates[variant] for variant in told.values()},
        "adding": [against(answers, r, ("seen", c), places) for r, c in adding.items()],
        "removing": [against(answers, r, (side, about(r)), places) for side, r in answering],
        "either": [either(answers, rule, two, places["seen"]) for rule, two in pairs],
        "together": [together(answers, rule, list(points), places) for rule in rules["together"]],
        "constraining": [
            constrained(answers, rule, told[domain], domain, places)
            for rule, domain in constraining.items()
        ],
        "distance": distance(folder, answers, {"adding": adding, "constraining": constraining}),
        "saturation": saturation(folder),
        "published": published(folder) if folder.has("published.json") else [],
        "seconds": folder.read_json("seconds.json"),
    }


def about(rule: str) -> str:
    """The category or kind that a rule is about: `if drugs and not hate then refuse`."""
    return rule.split()[1]


def against(answers: Answers, rule: str, own: Place, places: Places) -> dict[str, Any]:
    """A rule on its own category and on the others, beside the unsteered model."""
    others = [place for place in places[own[0]] if place != own]
    return {
        "rule": rule,
        "target": own[1],
        "own": answers.rate(rule, [own]),
        "own_before": answers.rate(BASE, [own]),
        "others": answers.rate(rule, others),
        "others_before": answers.rate(BASE, others),
    }


def either(
    answers: Answers, rule: str, targets: Sequence[str], every: Sequence[Place]
) -> dict[str, Any]:
    """A rule over two categories, on each beside that category's own rule; and on the others."""
    parts = []
    for target in targets:
        alone, place = f"if {target} then refuse", [("seen", target)]
        rates = {"both": answers.rate(rule, place), "alone": answers.rate(alone, place)}
        parts.append({"target": target, **rates, "gap": answers.gap(rule, alone, place)})
    others = [place for place in every if place[1] not in targets]
    return {"rule": rule, "parts": parts, "others": answers.rate(rule, others)}


def together(
    answers: Answers, both: str, categories: Sequence[str], places: Places
) -> dict[str, Any]:
    """Two rules at once: each on its own prompts beside that rule alone, and both on all other
    prompts."""
    parts, rest = [], {side: list(places[side]) for side in ("seen", "harmful")}
    for text in both.split("; "):
        target = about(text)
        own = ("seen" if target in categories else "harmful", target)
        rest[own[0]].remove(own)
        alone = f"if {target} then {text.split()[-1]}"
        ways = {"before": BASE, "alone": alone, "both": both}
        rates = {way: answers.rate(variant, [own]) for way, variant in ways.items()}
        gap = answers.gap(both, alone, [own])
        parts.append({"rule": alone, "target": target, **rates, "gap": gap})
    others = {
        side: {
            "before": answers.rate(BASE, of_side),
            "both": answers.rate(both, of_side),
            "gap": answers.gap(both, BASE, of_side),
        }
        for side, of_side in rest.items()
    }
    return {"rule": both, "parts": parts, "others": others}


def constrained(
    answers: Answers, rule: str, told: str, domain: str, places: Places
) -> dict[str, Any]:
    """All but one domain refused: by the rule and by telling the model."""
    own = ("seen", domain)
    outside = [place for place in places["seen"] if place != own]
    spots = {"inside": [own], "outside": outside, "unseen": places["unseen"]}
    return {
        "domain": domain,
        "rule": {spot: answers.rate(rule, of_spot) for spot, of_spot in spots.items()},
        "told": {spot: answers.rate(told, of_spot) for spot, of_spot in spots.items()},
    }


def distance(
    folder: Folder, answers: Answers, targets: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """For every rule and every category that it is not about: how far that is, and how much more of
    it is refused. `targets` has the category of each rule, by experiment."""
    table, found = folder.read_json("distances.json"), {}
    for experiment, of_experiment in targets.items():
        points = []
        for rule, target in of_experiment.items():
            for side, other in answers.places:
                asked = (rule, (side, other)) in answers.refused
                if asked and side != "harmful" and other != target:
                    effect = answers.gap(rule, BASE, [(side, other)])["value"]
                    point = {"target": target, "other": other, "distance": table[target][other]}
                    points.append(point | {"effect": effect})
        means = {}
        for target in of_experiment.values():
            own = over([point for point in points if point["target"] == target])
            means[target] = dict(zip(("distance", "effect"), map(fmean, own), strict=True))
        found[experiment] = {
            "points": points,
            "correlation": correlation(*over(points)),
            "means": means,
            "of_means": correlation(*over(list(means.values()))),
        }
    return found


def over(points: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """Distances and effects."""
    return [[point[key] for point in points] for key in ("distance", "effect")]


def saturation(folder: Folder) -> dict[str, Any]:
    """F1, refusal and seconds by number of examples, with their fits. Where a condition fires, the
    answer is the always steered model's, and the unsteered one's where not: both are the refusal
    run's."""
    rows = read_rows(Folder(folder / "refusal"), REQUESTS)
    refused = {(row.variant, REQUESTS[row.set], row.prompt): is_refused(row) for row in rows}
    points = []
    for point in folder.read_lines("saturation.jsonl", ("n", "repeat")):
        for side, fired in point.pop("fired").items():
            steered = {prompt: "unconditional" if on else "baseline" for prompt, on in fired.items()}
            point[side] = fmean(refused[way, side, prompt] for prompt, way in steered.items())
        points.append(point)
    n, f1, harmful, seconds = ([p[k] for p in points] for k in ("n", "f1", "harmful", "seconds"))
    fits = {"f1": plateau(n, f1), "harmful": plateau(n, harmful)}
    return {"points": points, "fits": fits, "time": line(n, seconds)}


def published(folder: Folder) -> list[dict[str, Any]]:
    """Each row's condition, and what is refused under it."""
    answers, rows = read_answers(folder, REQUESTS), []
    for name, point in folder.read_json("published.json").items():
        row = {"name": name, "condition": point["condition"]}
        row |= {f"f1_{split}": quality["f1"] for split, quality in point["quality"].items()}
        for side in SIDES:
            row[side] = answers.rate(name, [place for place in answers.places if place[0] == side])
        rows.append(row)
    return rows
