"""Where each category's condition is read, and when it fires."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.fit import tune
from nnsteer.folder import Folder
from nnsteer.model.runner import Runner
from nnsteer.program.condition import Condition, Score, Side
from nnsteer.program.direction import Directions
from nnsteer.program.site import Site
from nnsteer.progress import bar
from nnsteer.texts.categories import Groups
from nnsteer.texts.source import SPLITS


class Known(NamedTuple):
    """A condition point from elsewhere."""

    layer: int
    threshold: float
    fires_when: Side


Scores = Mapping[tuple[str, str], Tensor]
"""By split and category: a row for each candidate, a column for each prompt."""


def find_points(
    folder: Folder, name: str, runner: Runner, directions: Mapping[str, Directions], groups: Groups, unseen: Groups,
    score: Score, max_false_alarms: float, known: Mapping[str, Known],
) -> dict[str, Condition]:  # fmt: skip
    """A condition for each category that has directions: the cut that best tells its tune prompts from the other groups', over
    all sites of its directions; or the point that is known. The category counts as often as all the others together, as in the
    paper's data. Kept in `name`.json with the scores of every split, those of the unseen categories included."""
    candidates = {
        target: {site: Condition(direction, 0.0, score=score) for site, direction in directions[target].items()}
        for target in directions
    }
    file = f"{name}.json"
    if not folder.has(file):
        flat = [condition for own in candidates.values() for condition in own.values()]
        scores = score_all(runner, {**groups, **unseen}, flat, name) if flat else {}
        points, start = {}, 0
        for target, own in candidates.items():
            rows = slice(start, start + len(own))
            others = [group for group in groups if group != target]
            positive = scores["tune", target][rows].repeat(1, len(others))
            negative = torch.cat([scores["tune", other][rows] for other in others], dim=1)
            if target in known:
                row, point = given(known[target], list(own), positive, negative)
            else:
                row, point = best(list(own.values()), positive, negative, max_false_alarms)
            points[target] = {**asdict(point), "others": others, "scores": by_split(scores, start + row)}
            start += len(own)
        folder.write_json(file, points)
    return {
        target: replace(candidates[target][Site(**facts["site"])], threshold=facts["threshold"], fires_when=facts["fires_when"])
        for target, facts in folder.read_json(file).items()
    }


def score_all(runner: Runner, groups: Groups, candidates: list[Condition], name: str) -> dict[tuple[str, str], Tensor]:
    """Every candidate's score on every prompt, in one pass over the prompts."""
    asked = [(split, group, prompt.text) for group, own in groups.items() for split in SPLITS for prompt in getattr(own, split)]
    with bar(f"scoring {name}", len(asked)) as watch:
        found = runner.scores([text for *_, text in asked], candidates, watch)
    rows: dict[tuple[str, str], list[int]] = {}
    for row, (split, group, _) in enumerate(asked):
        rows.setdefault((split, group), []).append(row)
    return {place: found[:, own] for place, own in rows.items()}


def by_split(scores: Scores, row: int) -> dict[str, dict[str, list[float]]]:
    """One candidate's scores."""
    return {split: {group: found[row].tolist() for (at, group), found in scores.items() if at == split} for split in SPLITS}


def given(known: Known, sites: Sequence[Any], positive: Tensor, negative: Tensor) -> tuple[int, tune.ConditionPoint]:
    """Which site a known point is at, and the point with its F1 on these scores."""
    row = next(i for i, site in enumerate(sites) if site.layer == known.layer)
    point = tune.ConditionPoint(sites[row], known.threshold, known.fires_when, f1=0.0, gap=0.0)
    fired = ([point.fires(score) for score in side[row].tolist()] for side in (positive, negative))
    return row, replace(point, f1=tune.quality(*fired).f1)


def parse_known(text: str) -> tuple[str, Known]:
    """`NAME:LAYER>THRESHOLD` or `NAME:LAYER<THRESHOLD`, as in CAST's Table 4."""
    parts = re.fullmatch(r"(\w+):(\d+)([<>])(-?\d*\.?\d+)", text.replace(" ", ""))
    if parts is None:
        raise UserError(f"--points {text}: can't read it; give NAME:LAYER>THRESHOLD, such as hate:7>0.029")
    name, layer, sign, threshold = parts.groups()
    return name, Known(int(layer), float(threshold), "above" if sign == ">" else "below")


def best(
    candidates: Sequence[Condition], positive: Tensor, negative: Tensor, max_false_alarms: float
) -> tuple[int, tune.ConditionPoint]:
    """Which of the candidates separates the scores best, and at which point; both sides are [candidate, prompt]."""
    sweeps: dict[Any, tune.Sweep] = {
        candidate.site: tune.sweep(*sides) for candidate, *sides in zip(candidates, positive, negative, strict=True)
    }
    point = tune.condition_point(sweeps, max_false_alarms)
    return list(sweeps).index(point.site), point


def placed(candidate: Condition, point: tune.ConditionPoint) -> Condition:
    """The candidate with the point's threshold and side."""
    return replace(candidate, threshold=point.threshold, fires_when=point.fires_when)
