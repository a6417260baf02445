"""Where each category's condition is read, and when it fires."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.fit.threshold import best_point, known_point
from nnsteer.program.condition import Condition
from nnsteer.program.direction import Directions
from nnsteer.program.names import Score, Side
from nnsteer.program.site import Site
from nnsteer.progress import bar
from nnsteer.study.run import Run
from nnsteer.texts.categories import Groups, one_against_rest
from nnsteer.texts.contrast import ContrastSet
from nnsteer.texts.source import SPLITS

Scores = Mapping[tuple[str, str], Tensor]
"""[candidate, prompt], by split and group."""


class Known(NamedTuple):
    """A condition point from elsewhere."""

    layer: int
    threshold: float
    fires_when: Side


@dataclass(frozen=True)
class Comparison:
    """Groups of prompts, of which some get a condition: each is told from all the others. The
    `unseen` groups are scored besides; some points are `known`."""

    targets: Sequence[str]
    groups: Groups
    unseen: Groups = field(default_factory=dict)
    known: Mapping[str, Known] = field(default_factory=dict)

    def contrast(self, target: str) -> ContrastSet:
        """The target's fit prompts against the other groups'."""
        return one_against_rest(self.groups, target)


def find(
    run: Run,
    name: str,
    comparison: Comparison,
    directions: Mapping[str, Directions],
    score: Score,
    max_false_alarms: float,
) -> dict[str, Condition]:
    """A condition for each target: the cut that best tells its tune prompts from the other groups',
    over all sites of its directions; or the point that is known. Kept in `name`.json with the scores
    of every split."""
    if not run.folder.has(f"{name}.json"):
        candidates = {
            target: [Condition(direction, 0.0, score=score) for direction in by_site.values()]
            for target, by_site in directions.items()
        }
        scores = score_all(run, name, comparison, candidates)
        points = {
            target: point(comparison, target, candidates[target], of_target, max_false_alarms)
            for target, of_target in scores.items()
        }
        run.folder.write_json(f"{name}.json", points)
    conditions = {}
    for target, facts in run.folder.read_json(f"{name}.json").items():
        direction = directions[target][Site(**facts["site"])]
        conditions[target] = Condition(direction, facts["threshold"], facts["fires_when"], score)
    return conditions


def score_all(
    run: Run, name: str, comparison: Comparison, candidates: Mapping[str, Sequence[Condition]]
) -> dict[str, Scores]:
    """What each target's candidates score, in one pass over the prompts."""
    if not candidates:
        return {}
    groups = {**comparison.groups, **comparison.unseen}
    places = [(split, group) for group in groups for split in SPLITS]
    prompts = [getattr(groups[group], split) for split, group in places]
    texts = [prompt.text for of_place in prompts for prompt in of_place]
    every = [candidate for of_target in candidates.values() for candidate in of_target]
    with bar(f"scoring {name}", len(texts)) as watch:
        scores = run.runner.scores(texts, every, watch)
    by_target = scores.split([len(of_target) for of_target in candidates.values()])
    widths = [len(of_place) for of_place in prompts]
    return {
        target: dict(zip(places, rows.split(widths, dim=1), strict=True))
        for target, rows in zip(candidates, by_target, strict=True)
    }


def point(
    comparison: Comparison,
    target: str,
    candidates: Sequence[Condition],
    scores: Scores,
    max_false_alarms: float,
) -> dict:
    """A target's point and its scores. The target counts as often as all the others together, as in
    the paper's data."""
    others = [group for group in comparison.groups if group != target]
    positive = scores["tune", target].repeat(1, len(others))
    negative = torch.cat([scores["tune", other] for other in others], dim=1)
    if known := comparison.known.get(target):
        row = [candidate.site.layer for candidate in candidates].index(known.layer)
        site = candidates[row].site
        best = known_point(site, known.threshold, known.fires_when, positive[row], negative[row])
    else:
        row, best = best_point(candidates, positive, negative, max_false_alarms)
    by_split: dict[str, dict] = {split: {} for split in SPLITS}
    for (split, group), of_candidates in scores.items():
        by_split[split][group] = of_candidates[row].tolist()
    return {**asdict(best), "others": others, "scores": by_split}


def parse_known(text: str) -> tuple[str, Known]:
    """`NAME:LAYER>THRESHOLD` or `NAME:LAYER<THRESHOLD`, as in CAST's Table 4."""
    parts = re.fullmatch(r"(\w+):(\d+)([<>])(-?\d*\.?\d+)", text.replace(" ", ""))
    if parts is None:
        raise UserError(
            f"--points {text}: can't read it; give NAME:LAYER>THRESHOLD, such as hate:7>0.029"
        )
    name, layer, sign, threshold = parts.groups()
    return name, Known(int(layer), float(threshold), "above" if sign == ">" else "below")
