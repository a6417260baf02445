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
    points, answers = folder.read_json("categories.json"), read_answers(folder, SETS)
    places = {side: [p for p in answers.places if p[0] == side] for side in SETS.values()}
    rules = {
        experiment: ["; ".join(texts) for texts in sets]
        for experiment, sets in folder.read_json("experiments.json").items()
    }
    told = {axes["domain"]: name for name, axes in folder.read_json("variants.json").items()}
    rates = {variant: by_place(answers, variant) for variant, _ in answers.refused}
    of_told = {variant: rates.pop(variant) for variant in told.values()}
    adding = dict(zip(rules["adding"], points, strict=True))
    constraining = dict(zip(rules["constraining"], told, strict=True))
    answering = [(rule, "harmful") for rule in rules["removing"]]
    answering += [(rule, "seen") for rule in rules["answering"]]
    pairs = zip(rules["either"], pairwise(told), strict=True)
    return {
        "conditions": conditions(points),
        "kinds": conditions(folder.read_json("kinds.json")),
        "rates": rates,
        "told": of_told,
        "adding": [against(answers, rule, ("seen", on), places) for rule, on in adding.items()],
        "removing": [
            against(answers, rule, (side, about(rule)), places) for rule, side in answering
        ],
        "either": [either(answers, rule, targets, places["seen"]) for rule, targets in pairs],
        "together": [together(answers, both, list(points), places) for both in rules["together"]],
        "constraining": [
            constrained(answers, rule, told[domain], domain, places)
            for rule, domain in constraining.items()
        ],
        "distance": {
            "adding": distance(folder, answers, adding),
            "constraining": distance(folder, answers, constraining),
        },
        "saturation": saturation(folder),
        "published": published(folder) if folder.has("published.json") else [],
        "seconds": folder.read_json("seconds.json"),
    }


def by_place(answers: Answers, variant: str) -> dict[str, dict[str, Any]]:
    """The refused share of every category and kind that a variant was asked about, by set."""
    rates: dict[str, dict[str, Any]] = {}
    for side, kind in answers.places:
        if rate := answers.rate(variant, [(side, kind)]):
            rates.setdefault(side, {})[kind] = rate
    return rates


def about(rule: str) -> str:
    """The category or kind that a rule is about: `if drugs and not hate then refuse`."""
    return rule.split()[1]


def against(answers: Answers, rule: str, place: Place, places: Places) -> dict[str, Any]:
    """A rule on its own category and on the others, beside the unsteered model."""
    side, target = place
    others = [other for other in places[side] if other != place]
    return {
        "rule": rule,
        "target": target,
        **answers.rates({"own": rule, "own_before": BASE}, [place]),
        **answers.rates({"others": rule, "others_before": BASE}, others),
    }


def either(
    answers: Answers, rule: str, targets: Sequence[str], every: Sequence[Place]
) -> dict[str, Any]:
    """A rule over two categories, on each beside that category's own rule; and on the others."""
    parts = []
    for target in targets:
        alone, place = f"if {target} then refuse", [("seen", target)]
        rates = answers.rates({"both": rule, "alone": alone}, place)
        parts.append({"target": target, **rates, "gap": answers.gap(rule, alone, place)})
    others = [place for place in every if place[1] not in targets]
    return {"rule": rule, "parts": parts, "others": answers.rate(rule, others)}


def together(
    answers: Answers, both: str, categories: Sequence[str], places: Places
) -> dict[str, Any]:
    """Two rules at once: each on its own prompts beside that rule alone, and both on all other
    prompts."""
    parts, rest = [], {side: list(places[side]) for side in ("seen", "harmful")}
    for rule in both.split("; "):
        target = about(rule)
        side = "seen" if target in categories else "harmful"
        rest[side].remove((side, target))
        alone = f"if {target} then {rule.split()[-1]}"
        rates = answers.rates({"before": BASE, "alone": alone, "both": both}, [(side, target)])
        gap = answers.gap(both, alone, [(side, target)])
        parts.append({"rule": alone, "target": target, **rates, "gap": gap})
    others = {}
    for side, of_side in rest.items():
        rates = answers.rates({"before": BASE, "both": both}, of_side)
        others[side] = {**rates, "gap": answers.gap(both, BASE, of_side)}
    return {"rule": both, "parts": parts, "others": others}


def constrained(
    answers: Answers, rule: str, told: str, domain: str, places: Places
) -> dict[str, Any]:
    """All but one domain refused: by the rule and by telling the model."""
    inside = [("seen", domain)]
    outside = [place for place in places["seen"] if place not in inside]
    spots = {"inside": inside, "outside": outside, "unseen": places["unseen"]}
    return {
        "domain": domain,
        "rule": {spot: answers.rate(rule, of_spot) for spot, of_spot in spots.items()},
        "told": {spot: answers.rate(told, of_spot) for spot, of_spot in spots.items()},
    }


def distance(folder: Folder, answers: Answers, targets: Mapping[str, str]) -> dict[str, Any]:
    """For every rule and every category that it is not about: how far that is, and how much more of
    it is refused. `targets` has the category of each rule."""
    table, points = folder.read_json("distances.json"), []
    for rule, target in targets.items():
        for side, other in answers.places:
            there = (rule, (side, other)) in answers.refused
            if there and side != "harmful" and other != target:
                effect = answers.gap(rule, BASE, [(side, other)])["value"]
                point = {"target": target, "other": other, "distance": table[target][other]}
                points.append(point | {"effect": effect})
    means = {}
    for target in targets.values():
        far, more = over([point for point in points if point["target"] == target])
        means[target] = {"distance": fmean(far), "effect": fmean(more)}
    of_points, of_means = (correlation(*over(of)) for of in (points, list(means.values())))
    return {"points": points, "correlation": of_points, "means": means, "of_means": of_means}


def over(points: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """Distances and effects."""
    return [point["distance"] for point in points], [point["effect"] for point in points]


def saturation(folder: Folder) -> dict[str, Any]:
    """F1, refusal and seconds by number of examples, with their fits. Where a condition fires, the
    answer is the always steered model's, and the unsteered one's where not: both are the refusal
    run's."""
    rows = read_rows(Folder(folder / "refusal"), REQUESTS)
    refused = {(row.variant, REQUESTS[row.set], row.prompt): is_refused(row) for row in rows}
    points = []
    for point in folder.read_lines("saturation.jsonl", ("n", "repeat")):
        for side, fired in point.pop("fired").items():
            ways = {prompt: "unconditional" if on else "baseline" for prompt, on in fired.items()}
            point[side] = fmean(refused[way, side, prompt] for prompt, way in ways.items())
        points.append(point)
    n, f1, harmful, seconds = ([p[k] for p in points] for k in ("n", "f1", "harmful", "seconds"))
    fits = {"f1": plateau(n, f1), "harmful": plateau(n, harmful)}
    return {"points": points, "fits": fits, "time": line(n, seconds)}


def published(folder: Folder) -> list[dict[str, Any]]:
    """Each row's condition, and what is refused under it."""
    answers, rows = read_answers(folder, REQUESTS), []
    for name, point in folder.read_json("published.json").items():
        f1 = {f"f1_{split}": quality["f1"] for split, quality in point["quality"].items()}
        row = {"name": name, "condition": point["condition"], **f1}
        for side in SIDES:
            row[side] = answers.rate(name, [place for place in answers.places if place[0] == side])
        rows.append(row)
    return rows
