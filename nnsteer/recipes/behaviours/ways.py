"""Ways to steer: a behaviour's direction alone, random directions of its length, all directions
combined into one, and all at once, each at a layer of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import product

import torch
from torch.nn.functional import normalize

from nnsteer import fit
from nnsteer.program.direction import Directions
from nnsteer.program.op import Add
from nnsteer.program.program import Program, Step, add
from nnsteer.program.site import Site
from nnsteer.program.span import Where
from nnsteer.study import Variant

ByName = Mapping[str, Directions]
"""The directions of each behaviour."""
SIGNS = {"+": 1, "-": -1}
DRAWS = 8  # random directions that the control's items take in turn


@dataclass(frozen=True)
class Way:
    """One behaviour's direction, added at one layer."""

    behaviour: str
    layer: int
    coefficient: float

    def __str__(self) -> str:
        return f"{self.behaviour} at layer {self.layer} times {self.coefficient:g}"

    def variant(self, name: str, directions: ByName, span: Where) -> Variant:
        """It under a name."""
        direction = directions[self.behaviour].at(self.layer)
        return Variant(name, add(direction, self.coefficient, span), asdict(self))

    def control(self, name: str, directions: ByName, span: Where, seed: int) -> Variant:
        """Random directions of the same length, which prompts take in turn, under a name."""
        direction = directions[self.behaviour].at(self.layer)
        noise = [fit.random_like(direction, seed + i) for i in range(DRAWS)]
        programs = tuple(add(random, self.coefficient, span) for random in noise)
        return Variant(name, programs, {**asdict(self), "control": 1})


def facts(ways: Mapping[str, Way]) -> dict[str, dict]:
    """Ways to keep, each by its name."""
    return {name: asdict(way) for name, way in ways.items()}


def draws(controls: Iterable[Variant]) -> list[Variant]:
    """Each random direction by itself."""
    return [
        Variant(f"{control.name} {i}", program)
        for control in controls
        for i, program in enumerate(control.in_turn)
    ]


def combined(directions: ByName, best: Mapping[str, Way], layer: int, span: Where) -> list[Variant]:
    """One vector at one layer, up and down: the mean and the sum of the directions; the same
    weighted by the coefficients that serve each behaviour best there."""
    parts = [of_behaviour.at(layer) for of_behaviour in directions.values()]
    n = len(parts)
    plain = {sign: [float(along)] * n for sign, along in SIGNS.items()}
    served = {s: [best[f"{name} {s}"].coefficient for name in directions] for s in SIGNS}
    kinds = {
        "mean": (plain, 1 / n),
        "weighted mean": (served, 1 / n),
        "sum": (plain, 1.0),
        "weighted sum": (served, 1.0),
    }
    variants = []
    for (kind, (weights, share)), sign in product(kinds.items(), SIGNS):
        vector = fit.total(parts, [share * weight for weight in weights[sign]])[layer]
        # not by `add`, which refuses a vector of zeros: every weight may be 0
        program = Program((Step(Add(vector), Site(layer), span),))
        variants.append(Variant(f"{kind} {sign}", program, {"layer": layer}))
    return variants


def simultaneous(
    directions: ByName, layers: Mapping[str, int], scalars: Iterable[float], span: Where
) -> dict[float, Variant]:
    """Every behaviour's direction at its own layer, all times one scalar: 0, or one of a sign."""
    variants = {}
    for scalar in sorted({0.0, *scalars, *(-scalar for scalar in scalars)}):
        steps = [add(directions[name].at(layer), scalar, span) for name, layer in layers.items()]
        program = sum(steps, Program())
        variants[scalar] = Variant(f"simultaneous {scalar:g}", program, {"scalar": scalar})
    return variants


def cosines(directions: ByName) -> dict[str, list[list[float]]]:
    """The cosine of each two behaviours' directions, by site. Far from 0, steering one is likely to
    move the other."""
    found = {}
    for site in next(iter(directions.values())):
        vectors = torch.stack([of_behaviour[site].vector for of_behaviour in directions.values()])
        units = normalize(vectors, dim=1)
        found[str(site)] = (units @ units.mT).tolist()
    return found
