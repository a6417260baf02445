"""Where each category's condition is read, and when it fires."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.fit.threshold import best_point, known_point
from nnsteer.program.condition import Condition
from nnsteer.program.direction import Directions
from nnsteer.program.names import Side
from nnsteer.program.site import Site
from nnsteer.progress import bar
from nnsteer.recipes.refusal.options import Config
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
    run: Run, config: Config, name: str, of: Comparison, directions: Mapping[str, Directions]
) -> dict[str, Condition]:
    """A condition for each target: the cut that best tells its tune prompts from the other groups',
    over all sites of its directions; or the point that is known. Kept in `name`.json with the
    scores of every split."""
    if not run.folder.has(f"{name}.json"):
        free = {
            target: [Condition(d, 0.0, score=config.score) for d in by_site.values()]
            for target, by_site in directions.items()
        }
        points = {}
        for target, scores in score_all(run, name, of, free).items():
            points[target] = point(config, of, target, free[target], scores)
        run.folder.write_json(f"{name}.json", points)
    conditions = {}
    for target, facts in run.folder.read_json(f"{name}.json").items():
        at = facts["threshold"], facts["fires_when"], config.score
        conditions[target] = Condition(directions[target][Site(**facts["site"])], *at)
    return conditions


def score_all(
    run: Run, name: str, of: Comparison, free: Mapping[str, Sequence[Condition]]
) -> dict[str, Scores]:
    """What each target's candidates score, in one pass over the prompts."""
    if not free:
        return {}
    groups = {**of.groups, **of.unseen}
    places = list(product(SPLITS, groups))
    prompts = [getattr(groups[group], split) for split, group in places]
    texts = [prompt.text for of_place in prompts for prompt in of_place]
    candidates = [candidate for of_target in free.values() for candidate in of_target]
    with bar(f"scoring {name}", len(texts)) as watch:
        scores = run.runner.scores(texts, candidates, watch)
    by_target = zip(free, scores.split(list(map(len, free.values()))), strict=True)
    widths = list(map(len, prompts))
    return {
        target: dict(zip(places, of_target.split(widths, dim=1), strict=True))
        for target, of_target in by_target
    }


def point(
    config: Config, of: Comparison, target: str, candidates: Sequence[Condition], scores: Scores
) -> dict:
    """A target's point and its scores. The target counts as often as all the others together, as
    in the paper's data."""
    others = [group for group in of.groups if group != target]
    positive = scores["tune", target].repeat(1, len(others))
    negative = torch.cat([scores["tune", other] for other in others], dim=1)
    if known := of.known.get(target):
        row = [candidate.site.layer for candidate in candidates].index(known.layer)
        site, at = candidates[row].site, (known.threshold, known.fires_when)
        best = known_point(site, *at, positive[row], negative[row])
    else:
        row, best = best_point(candidates, positive, negative, config.category_false_alarms)
    by_split: dict[str, dict] = {split: {} for split in SPLITS}
    for (split, group), of_candidates in scores.items():
        by_split[split][group] = of_candidates[row].tolist()
    return {**asdict(best), "others": others, "scores": by_split}


def parse_known(text: str) -> tuple[str, Known]:
    """`NAME:LAYER>THRESHOLD` or `NAME:LAYER<THRESHOLD`, as in CAST's Table 4."""
    parts = re.fullmatch(r"(\w+):(\d+)([<>])(-?\d*\.?\d+)", text.replace(" ", ""))
    if parts is None:
        wanted = "give NAME:LAYER>THRESHOLD, such as hate:7>0.029"
        raise UserError(f"--points {text}: can't read it; {wanted}")
    name, layer, sign, threshold = parts.groups()
    return name, Known(int(layer), float(threshold), "above" if sign == ">" else "below")
