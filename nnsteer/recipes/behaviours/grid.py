"""The grid of the behaviours recipe: each behaviour's direction alone, at every layer and coefficient, on the tune split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from statistics import fmean

import numpy as np
from scipy.optimize import linear_sum_assignment

from nnsteer.folder import Folder
from nnsteer.measure.items import Asked, Row, ask, counted
from nnsteer.model.runner import Runner
from nnsteer.program.direction import Directions
from nnsteer.program.program import Program, add
from nnsteer.program.site import Site
from nnsteer.program.span import Where
from nnsteer.texts.behaviours import Behaviour

SIGNS = (1, -1)


@dataclass(frozen=True)
class Score:
    """What a behaviour's items say of one way to steer."""

    score: float
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


@dataclass(frozen=True)
class Cell:
    """One behaviour's direction, added at one layer."""

    behaviour: str
    layer: int
    coefficient: float
    found: Score


def score(rows: Sequence[Row]) -> Score:
    """The rows of one behaviour under one variant."""
    tally = counted(rows)
    return Score(tally.score, tally.faulty / tally.total, tally.collapsed, fmean(row.margin for row in rows))


def walk(
    folder: Folder, runner: Runner, behaviours: Sequence[Behaviour], directions: Mapping[str, Directions],
    coefficients: Sequence[float], span: Where, max_faulty: float,
) -> list[Cell]:  # fmt: skip
    """Every behaviour's tune items at every layer that its directions have, unsteered, then with both signs of one coefficient
    after the other; a layer and sign at which the answers collapse or are faulty is left there (van der Weij et al.). Rows lie in
    grid_rows.jsonl, cells in grid.json."""
    layers = [site.layer for site in directions[behaviours[0].name]]
    asked = [Asked("baseline", b.name, item, Program()) for b in behaviours for item in b.tune]
    plain = grouped(ask(folder, "grid_rows.jsonl", runner, asked))
    cells = [Cell(b.name, layer, 0.0, score(plain["baseline", b.name])) for b, layer in product(behaviours, layers)]
    alive = list(product(behaviours, layers, SIGNS))
    for size in sorted(coefficients):
        if not alive:
            break
        names = {(b.name, layer, sign): f"layer {layer} coefficient {sign * size:g}" for b, layer, sign in alive}
        asked = []
        for b, layer, sign in alive:
            program = add({Site(layer): directions[b.name][Site(layer)]}, sign * size, span)
            asked += [Asked(names[b.name, layer, sign], b.name, item, program) for item in b.tune]
        found = grouped(ask(folder, "grid_rows.jsonl", runner, asked))
        new = {at: Cell(*at[:2], at[2] * size, score(found[names[at], at[0]])) for at in names}
        cells += new.values()
        alive = [(b, layer, sign) for b, layer, sign in alive if new[b.name, layer, sign].found.usable(max_faulty)]
    folder.write_json("grid.json", {"cells": [asdict(cell) for cell in cells]})
    return cells


def grouped(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by variant and behaviour."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.variant, row.behaviour), []).append(row)
    return groups


def best(cells: Sequence[Cell], behaviour: str, sign: int, max_faulty: float, layer: int | None = None) -> Cell:
    """The cell that moves the matching score furthest up (sign 1) or down (-1) among those where the model still chooses, at one
    layer or at any; ties go to the smaller coefficient, so that where nothing helps it is 0."""
    own = [c for c in cells if c.behaviour == behaviour and c.coefficient * sign >= 0 and layer in (None, c.layer)]
    usable = [c for c in own if c.coefficient == 0 or c.found.usable(max_faulty)]
    return max(usable, key=lambda c: (sign * c.found.score, -abs(c.coefficient)))


def spreads(cells: Sequence[Cell], max_faulty: float) -> dict[str, dict[int, float]]:
    """How far apart the best cells of both signs are, by behaviour and layer."""
    names, layers = (list(dict.fromkeys(getattr(c, part) for c in cells)) for part in ("behaviour", "layer"))

    def spread(name: str, layer: int) -> float:
        up, down = (best(cells, name, sign, max_faulty, layer).found.score for sign in SIGNS)
        return up - down

    return {name: {layer: spread(name, layer) for layer in layers} for name in names}


def common_layer(found: Mapping[str, Mapping[int, float]]) -> int:
    """The layer at which the behaviours' spreads are largest together."""
    layers = next(iter(found.values()))
    return max(layers, key=lambda layer: sum(own[layer] for own in found.values()))


def layer_of_each(found: Mapping[str, Mapping[int, float]]) -> dict[str, int]:
    """A layer for every behaviour, no layer for more of them than must be, with the largest sum of spreads."""
    layers = list(next(iter(found.values())))
    places = layers * -(-len(found) // len(layers))
    rows, columns = linear_sum_assignment(np.array([[own[layer] for layer in places] for own in found.values()]), maximize=True)
    return {list(found)[row]: places[column] for row, column in zip(rows, columns, strict=True)}
