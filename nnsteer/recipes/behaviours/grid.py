"""What is chosen on the tune split: for each direction alone the layer and the coefficient, for all
together a layer, or one for each, and a scalar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import compress, product
from statistics import fmean
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from nnsteer.measure.choice import choice, counted
from nnsteer.program.program import Program
from nnsteer.program.span import Where
from nnsteer.recipes.behaviours.ways import SIGNS, ByName, Way
from nnsteer.study import BASELINE, Run, Variant
from nnsteer.study.rows import Row
from nnsteer.texts.behaviours import Behaviour
from nnsteer.texts.sets import PromptSet
from nnsteer.texts.source import Prompt

Spreads = Mapping[str, Mapping[int, float]]
"""Differences of matching scores, by behaviour and layer."""


@dataclass(frozen=True)
class Score:
    """What a behaviour's items say of one way to steer."""

    matching: float
    """The matching score: matches over all items."""
    faulty: float
    """The share of answers that are neither of the two."""
    collapsed: bool
    """Whether more than 95 % of the answers are the same one."""
    margin: float
    """Mean logit difference, matching minus other."""

    def usable(self, max_faulty: float) -> bool:
        """Whether the model still chooses."""
        return not self.collapsed and self.faulty <= max_faulty


def ask(
    run: Run, variants: Sequence[Variant], behaviour: Behaviour, split: Literal["tune", "test"]
) -> list[Row]:
    """Which answers the model gives to a behaviour's items under each variant."""
    items = behaviour.tune if split == "tune" else behaviour.test
    prompts = tuple(Prompt(item.prompt) for item in items)
    return run.ask(variants, [PromptSet(f"{behaviour.name} {split}", prompts)], [choice(items)])


def scores(run: Run, variants: Sequence[Variant], behaviour: Behaviour) -> list[Score]:
    """Each variant's on the behaviour's tune items."""
    rows = ask(run, variants, behaviour, "tune")
    return [score([row for row in rows if row.variant == variant.name]) for variant in variants]


def score(rows: Sequence[Row]) -> Score:
    """The rows of one behaviour under one variant."""
    choices = [row.values["choice"] for row in rows]
    tally, margin = counted(choices), fmean(choice["margin"] for choice in choices)
    return Score(tally.score, tally.faulty / tally.total, tally.collapsed, margin)


def walk(
    run: Run,
    behaviours: Sequence[Behaviour],
    directions: ByName,
    coefficients: Sequence[float],
    span: Where,
    max_faulty: float,
) -> dict[Way, Score]:
    """Every behaviour's tune items at every layer that its directions have, unsteered, then with
    both signs of one coefficient after the other; a layer and sign at which the answers collapse or
    are faulty is left there (van der Weij et al.). Kept in grid.json."""
    grid: dict[Way, Score] = {}
    for behaviour in behaviours:
        name, layers = behaviour.name, [site.layer for site in directions[behaviour.name]]
        (unsteered,) = scores(run, [Variant(BASELINE, Program())], behaviour)
        grid |= {Way(name, layer, 0.0): unsteered for layer in layers}
        alive = list(product(layers, SIGNS.values()))
        for size in sorted(coefficients):
            ways = [Way(name, layer, sign * size) for layer, sign in alive]
            variants = [way.variant(str(way), directions, span) for way in ways]
            grid |= zip(ways, scores(run, variants, behaviour), strict=True)
            alive = list(compress(alive, [grid[way].usable(max_faulty) for way in ways]))
    cells = [{**asdict(way), "score": asdict(score)} for way, score in grid.items()]
    run.folder.write_json("grid.json", {"cells": cells})
    return grid


def best(
    grid: Mapping[Way, Score], name: str, sign: int, max_faulty: float, layer: int | None = None
) -> Way:
    """What moves a behaviour's matching score furthest up (sign 1) or down (-1) while the model
    still chooses, at one layer or at any; ties go to the smaller coefficient, so that where nothing
    helps it is 0."""
    here = [way for way in grid if way.behaviour == name and layer in (None, way.layer)]
    along = [w for w in here if w.coefficient * sign > 0 and grid[w].usable(max_faulty)]
    unsteered = [way for way in here if way.coefficient == 0]
    return max(
        [*unsteered, *along], key=lambda way: (sign * grid[way].matching, -abs(way.coefficient))
    )


def best_of_each(
    grid: Mapping[Way, Score], max_faulty: float, layer: int | None = None
) -> dict[str, Way]:
    """The best ways up and down, by the behaviour's name with the sign."""
    names = dict.fromkeys(way.behaviour for way in grid)
    pairs = product(names, SIGNS.items())
    return {f"{name} {s}": best(grid, name, sign, max_faulty, layer) for name, (s, sign) in pairs}


def spreads(grid: Mapping[Way, Score], max_faulty: float) -> Spreads:
    """How far apart the best scores of both signs are, by behaviour and layer."""
    found: dict[str, dict[int, float]] = {}
    for name, layer in dict.fromkeys((way.behaviour, way.layer) for way in grid):
        up, down = (best(grid, name, sign, max_faulty, layer) for sign in (1, -1))
        found.setdefault(name, {})[layer] = grid[up].matching - grid[down].matching
    return found


def common_layer(spreads: Spreads) -> int:
    """The layer at which the behaviours' spreads are largest together."""
    layers = next(iter(spreads.values()))
    return max(layers, key=lambda layer: sum(of_layer[layer] for of_layer in spreads.values()))


def layer_of_each(spreads: Spreads) -> list[int]:
    """A layer for every behaviour, no layer for more of them than must be, with the largest sum of
    spreads."""
    layers = list(next(iter(spreads.values())))
    places = layers * -(-len(spreads) // len(layers))
    gains = np.array([[of_layer[layer] for layer in places] for of_layer in spreads.values()])
    _, columns = linear_sum_assignment(gains, maximize=True)
    return [places[column] for column in columns]


def sweep(
    run: Run, behaviours: Sequence[Behaviour], variants: Mapping[float, Variant]
) -> dict[float, dict[str, Score]]:
    """Every behaviour's tune items at every scalar of simultaneous steering. Kept in sweep.json."""
    swept: dict[float, dict[str, Score]] = {scalar: {} for scalar in variants}
    for behaviour in behaviours:
        of_scalars = scores(run, list(variants.values()), behaviour)
        for scalar, score in zip(variants, of_scalars, strict=True):
            swept[scalar][behaviour.name] = score
    points = []
    for scalar, by_name in swept.items():
        facts = {name: asdict(score) for name, score in by_name.items()}
        points.append({"scalar": scalar, "variant": variants[scalar].name, "behaviours": facts})
    run.folder.write_json("sweep.json", {"points": points})
    return swept


def best_scalar(swept: Mapping[float, Mapping[str, Score]], sign: int, max_faulty: float) -> float:
    """The scalar of this sign that moves the mean matching score furthest while the model still
    chooses on every behaviour; 0 where there is none."""
    usable = [
        scalar
        for scalar, by_name in swept.items()
        if scalar * sign > 0 and all(score.usable(max_faulty) for score in by_name.values())
    ]

    def effect(scalar: float) -> tuple[float, float]:
        return sign * fmean(score.matching for score in swept[scalar].values()), -abs(scalar)

    return max([0.0, *usable], key=effect)
