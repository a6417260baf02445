"""The texts that a study reads, loaded once, before any model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnsteer.errors import UserError
from nnsteer.study.spec import DirectionSpec, Spec
from nnsteer.texts.contrast import ContrastSet
from nnsteer.texts.refusal import Split, load_contrast
from nnsteer.texts.sets import PromptSet
from nnsteer.texts.source import BUNDLED, load_prompts

CHOSEN: tuple[Split, ...] = ("tune", "test")  # a threshold is found on the first; both are shown
Sides = tuple[Sequence[str], Sequence[str]]
"""Positive and negative texts."""


@dataclass(frozen=True)
class Inputs:
    """What is asked, what directions are fitted on, and what conditions are scored on."""

    sets: tuple[PromptSet, ...]
    contrasts: Mapping[str, ContrastSet]
    """By direction."""
    sides: Mapping[str, Mapping[Split, Sides]]
    """The tune and test prompts of each direction that a condition reads."""


def load_inputs(spec: Spec) -> Inputs:
    """Reads every SOURCE of a study. Raises UserError for one that can't be read."""
    sets = tuple(
        PromptSet(name, getattr(load_prompts(entry.source, spec.seed), entry.split)[: entry.first])
        for name, entry in spec.sets.items()
    )
    contrasts = {name: contrast(spec.directions[name], spec.seed) for name in spec.fitted}
    sides = {entry.direction: prompts(spec, entry.direction) for entry in spec.conditions.values()}
    return Inputs(sets, contrasts, sides)


def contrast(entry: DirectionSpec, seed: int) -> ContrastSet:
    """The texts that a direction is fitted on."""
    return load_contrast(entry.positive, entry.negative, entry.prompts, entry.pairs, seed)


def prompts(spec: Spec, name: str) -> dict[Split, Sides]:
    """Both sides' prompts of a direction. Raises UserError for one that contrasts openers."""
    entry = spec.directions[name]
    if entry.prompts is not None:
        raise UserError(
            f"[conditions] direction {name!r}: contrasts openers of answers, "
            "and a condition reads prompts; give another"
        )
    sides = [load_prompts(source, spec.seed) for source in (entry.positive, entry.negative)]
    return {
        split: (
            [p.text for p in getattr(sides[0], split)],
            [p.text for p in getattr(sides[1], split)],
        )
        for split in CHOSEN
    }


def side_names(entry: DirectionSpec) -> dict[str, str]:
    """What the report calls the two sides: their SOURCEs, without folder, revision and suffix."""
    named = {}
    for side, source in (("positive", entry.positive), ("negative", entry.negative)):
        place, comma, options = source.removeprefix(BUNDLED).partition(",")
        named[side] = re.sub(r"(@[^,]+|\.\w+)$", "", place.rpartition("/")[2]) + comma + options
    return named
