"""Which requests the model refuses unsteered: there is none to remove from the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean

from nnsteer.measure.refusal import is_refused
from nnsteer.recipes.categories.experiments import UNSTEERED
from nnsteer.study.rows import Row
from nnsteer.study.run import Run
from nnsteer.texts.sets import PromptSet

REFUSED = 0.5  # share of a kind's tune prompts


@dataclass(frozen=True)
class Refused:
    """What is mostly refused: kinds of harmful prompts, categories, and some of their tune prompts."""

    kinds: Sequence[str]
    categories: Sequence[str]
    tried: PromptSet


def mostly_refused(
    run: Run, harmful: PromptSet, seen: PromptSet, most: int, seed: int
) -> Refused:
    """Asks the unsteered model; `most` prompts are drawn of those whose kind it mostly refuses."""
    sets = (harmful, seen)
    rows = run.ask([UNSTEERED], sets)
    kinds, categories = (refused_kinds(rows, prompts.name) for prompts in sets)
    pool = [prompt for prompt in harmful.prompts if prompt.kind in kinds]
    pool += [prompt for prompt in seen.prompts if prompt.kind in categories]
    tried = Random(seed).sample(pool, min(most, len(pool)))
    alone = len(kinds) == 1  # it has no rest to be told from
    return Refused([] if alone else kinds, categories, PromptSet("refused tune", tuple(tried)))


def refused_kinds(rows: Sequence[Row], set_name: str) -> list[str]:
    """The kinds of a set of which most prompts are refused."""
    by_kind: dict[str, list[bool]] = {}
    for row in rows:
        if row.set == set_name:
            by_kind.setdefault(row.kind, []).append(is_refused(row))
    return [kind for kind, refused in by_kind.items() if kind and fmean(refused) > REFUSED]
