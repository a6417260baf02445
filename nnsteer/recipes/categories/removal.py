"""What the model refuses unsteered: there is no refusal to remove from the rest."""

from __future__ import annotations

from random import Random
from statistics import fmean
from typing import NamedTuple

from nnsteer.measure.refusal import is_refused
from nnsteer.recipes.categories.experiments import UNSTEERED
from nnsteer.study.run import Run
from nnsteer.texts.sets import PromptSet
from nnsteer.texts.source import Prompt

REFUSED = 0.5  # share of a kind's tune prompts


class Refused(NamedTuple):
    """What is mostly refused: kinds of harmful prompts, and categories; and some such prompts."""

    kinds: list[str]
    categories: list[str]
    tune: PromptSet


def mostly_refused(run: Run, harmful: PromptSet, seen: PromptSet, most: int, seed: int) -> Refused:
    """Asks the unsteered model, and draws `most` prompts of what it mostly refuses."""
    by_set: list[list[str]] = []
    pool: list[Prompt] = []
    for prompts in (harmful, seen):
        by_kind: dict[str, list[bool]] = {}
        for row in run.ask([UNSTEERED], [prompts]):
            by_kind.setdefault(row.kind, []).append(is_refused(row))
        kinds = [kind for kind, verdicts in by_kind.items() if kind and fmean(verdicts) > REFUSED]
        by_set.append(kinds)
        pool += [prompt for prompt in prompts.prompts if prompt.kind in kinds]
    of_harmful, categories = by_set
    if len(of_harmful) == 1:  # one alone has no rest to be told from
        of_harmful = []
    drawn = Random(seed).sample(pool, min(most, len(pool)))
    return Refused(of_harmful, categories, PromptSet("refused tune", tuple(drawn)))
