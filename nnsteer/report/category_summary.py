"""The content of a categories run's summary.json, experiment by experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from nnsteer.folder import Folder
from nnsteer.measure.answers import KEY
from nnsteer.report.category_numbers import Answers, Place, conditions, correlation, line, plateau, read_answers
from nnsteer.texts.refusal import SIDES

BASE, REFUSE, COMPLY, RANDOM = "not steered", "always refuse", "always comply", "random direction"
Rules = Sequence[Sequence[str]]
Cell = dict[str, Any] | None


def summarise(folder: Folder) -> dict[str, Any]:
    """Every number of the page."""
    steered, told = read_answers(folder, "rows.jsonl"), read_answers(folder, "prompting.jsonl")
    rules = folder.read_json("experiments.json")
    points, kinds = folder.read_json("categories.json"), folder.read_json("kinds.json")
    places = {side: [place for place in steered.places if place[0] == side] for side in ("seen", "unseen", "harmful")}
    domains = list(points)[1:]  # the first is the ordinary category
    constraining = constrain(steered, told, rules["constraining"], domains, places)
    return {
        "conditions": conditions(points),
        "kinds": conditions(kinds),
        "rates": {variant: rates(steered, variant) for variant in dict.fromkeys(variant for variant, _ in steered.refused)},
        "told": {variant: rates(told, variant) for variant in dict.fromkeys(variant for variant, _ in told.refused)},
        "adding": [one_against_others(steered, name(r), ("seen", c), places["seen"]) for r, c in paired(rules["adding"], points)],
        "removing": [
            one_against_others(steered, name(rule), (side, rule[0].split()[1]), places[side])
            for experiment, side in (("removing", "harmful"), ("answering", "seen"))
            for rule in rules.get(experiment, [])
        ],
        "either": [
            either(steered, name(r), two, places["seen"]) for r, two in zip(rules["either"], pairwise(domains), strict=True)
        ],
        "together": [together(steered, r, list(points), places) for r in rules["together"]],
        "constraining": constraining,
        "distance": distance(folder, steered, rules, list(points)),
        "saturation": saturation(folder),
        "published": published(folder) if folder.has("published.json") else [],
        "seconds": folder.read_json("seconds.json"),
    }


def name(rules: Sequence[str]) -> str:
    """The variant of some rules."""
    return "; ".join(rules)


def paired(rules: Rules, names: Mapping[str, object]) -> list[tuple[Sequence[str], str]]:
    """Each rule with the category that it is about."""
    return list(zip(rules, names, strict=False))


def rates(answers: Answers, variant: str) -> dict[str, dict[str, Cell]]:
    """The refused share of every category and kind, by set."""
    found: dict[str, dict[str, Cell]] = {}
    for side, kind in answers.places:
        if (variant, (side, kind)) in answers.refused:
            found.setdefault(side, {})[kind] = answers.rate(variant, [(side, kind)])
    return found


def one_against_others(answers: Answers, variant: str, own: Place, every: Sequence[Place]) -> dict[str, Any]:
    """A rule on its own category and on the others, beside the unsteered model."""
    others = [place for place in every if place != own]
    return {
        "rule": variant, "target": own[1],
        "own": answers.rate(variant, [own]), "own_before": answers.rate(BASE, [own]),
        "others": answers.rate(variant, others), "others_before": answers.rate(BASE, others),
    }  # fmt: skip


def either(answers: Answers, variant: str, targets: Sequence[str], every: Sequence[Place]) -> dict[str, Any]:
    """A rule over two categories, on each beside that category's own rule; and on the others."""
    parts = [
        {
            "target": target,
            "both": answers.rate(variant, [("seen", target)]),
            "alone": answers.rate(f"if {target} then refuse", [("seen", target)]),
            "gap": answers.gap(variant, f"if {target} then refuse", [("seen", target)]),
        }
        for target in targets
    ]
    return {"rule": variant, "parts": parts, "others": answers.rate(variant, [p for p in every if p[1] not in targets])}


def together(
    answers: Answers, rules: Sequence[str], categories: Sequence[str], places: Mapping[str, Sequence[Place]]
) -> dict[str, Any]:
    """Two rules at once: each on its own prompts beside that rule alone, and both on all other prompts."""
    both, parts, targets = name(rules), [], []
    for text in rules:
        target, behaviour = text.split()[1], text.split()[-1]
        rule = f"if {target} then {behaviour}"
        own = ("seen" if target in categories else "harmful", target)
        targets.append(own)
        shares = {what: answers.rate(variant, [own]) for what, variant in (("before", BASE), ("alone", rule), ("both", both))}
        parts.append({"rule": rule, "target": target, **shares, "gap": answers.gap(both, rule, [own])})
    rest = {side: [place for place in places[side] if place not in targets] for side in ("seen", "harmful")}
    others = {
        side: {"before": answers.rate(BASE, own), "both": answers.rate(both, own), "gap": answers.gap(both, BASE, own)}
        for side, own in rest.items()
    }
    return {"rule": both, "parts": parts, "others": others}


def constrain(
    steered: Answers, told: Answers, rules: Rules, domains: Sequence[str], places: Mapping[str, Sequence[Place]]
) -> list[dict[str, Any]]:
    """All but one domain refused: by the rule and by telling the model."""
    found = []
    for rule, domain in zip(rules, domains, strict=True):
        others = [place for place in places["seen"] if place[1] != domain]
        spots = {"inside": [("seen", domain)], "outside": others, "unseen": places["unseen"]}
        found.append(
            {
                "domain": domain,
                "rule": {spot: steered.rate(name(rule), own) for spot, own in spots.items()},
                "told": {spot: told.rate(f"told: only {domain}", own) for spot, own in spots.items()},
            }
        )
    return found


def distance(folder: Folder, answers: Answers, rules: Mapping[str, Rules], categories: Sequence[str]) -> dict[str, Any]:
    """For every rule and every category that it is not about: how far that is, and how much more of it is refused."""
    table = folder.read_json("distances.json")
    about = {"adding": list(categories), "constraining": list(categories)[1:]}
    found: dict[str, Any] = {}
    for experiment, targets in about.items():
        points = []
        for rule, target in zip(rules[experiment], targets, strict=True):
            for place in answers.places:
                asked = (name(rule), place) in answers.refused and place[0] in ("seen", "unseen")
                if asked and place[1] != target:
                    effect = answers.gap(name(rule), BASE, [place])["value"]
                    points.append({"target": target, "other": place[1], "distance": table[target][place[1]], "effect": effect})
        means = {target: averages([point for point in points if point["target"] == target]) for target in targets}
        found[experiment] = {
            "points": points, "correlation": correlation(*over(points)),
            "means": means, "of_means": correlation(*over(list(means.values()))),
        }  # fmt: skip
    return found


def over(points: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """Distances and effects."""
    return [[point[key] for point in points] for key in ("distance", "effect")]


def averages(points: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean distance and the mean effect: the paper's point for a domain."""
    return {key: fmean(values) for key, values in zip(("distance", "effect"), over(points), strict=True)}


def saturation(folder: Folder) -> dict[str, Any]:
    """F1, refusal and seconds by number of examples, with their fits. Where a condition fires, the answer is the always steered
    model's, and the unsteered one's where not: both are the refusal run's."""
    answers: dict[tuple[str, str], dict[str, bool]] = {}
    for row in Folder(folder / "refusal").read_lines("rows.jsonl", KEY):
        answers.setdefault((row["variant"], row["side"]), {})[row["prompt"]] = row["refused"]
    points = []
    for row in folder.read_lines("saturation.jsonl", ("n", "repeat")):
        kept = {key: row[key] for key in ("n", "repeat", "seconds", "layer", "f1")}
        points.append(kept | {side: refused(answers, side, row["fired"][side]) for side in SIDES})
    n = [point["n"] for point in points]
    fits = {key: plateau(n, [point[key] for point in points]) for key in ("f1", "harmful")}
    return {"points": points, "fits": fits, "time": line(n, [point["seconds"] for point in points])}


def refused(answers: Mapping[tuple[str, str], Mapping[str, bool]], side: str, fired: Mapping[str, bool]) -> float:
    """The share of a side refused under a condition's verdicts, by prompt."""
    return fmean(answers["unconditional" if fires else "baseline", side][prompt] for prompt, fires in fired.items())


def published(folder: Folder) -> list[dict[str, Any]]:
    """Each row's condition, and what is refused under it."""
    answers, facts = read_answers(folder, "published.jsonl"), folder.read_json("published.json")
    by_side = {side: [place for place in answers.places if place[0] == side] for side in SIDES}
    return [
        {
            "name": row, "condition": point["condition"], **{f"f1_{split}": q["f1"] for split, q in point["quality"].items()},
            **{side: answers.rate(row, places) for side, places in by_side.items()},
        }
        for row, point in facts.items()
    ]  # fmt: skip
