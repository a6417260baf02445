"""Several directions in one program: combined into one at one layer, or each at a layer of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean

import torch
from torch.nn.functional import normalize

from nnsteer import fit
from nnsteer.folder import Folder
from nnsteer.measure.items import Asked, ask
from nnsteer.model.runner import Runner
from nnsteer.program.direction import Directions
from nnsteer.program.op import Add
from nnsteer.program.program import Program, Step, add
from nnsteer.program.site import Site
from nnsteer.program.span import Where
from nnsteer.recipes.behaviours.grid import Score, grouped, score
from nnsteer.texts.behaviours import Behaviour


def combined(
    directions: Mapping[str, Directions], layer: int, weights: Mapping[str, Sequence[float]], span: Where
) -> dict[str, Program]:
    """One vector at one layer, up and down: the mean and the sum of the directions; the same weighted by the coefficients that
    served each behaviour best there, of which `weights` has a list for each sign."""
    site = Site(layer)
    parts = [{site: own[site]} for own in directions.values()]
    programs: dict[str, Program] = {}
    for name, share in (("mean", 1 / len(parts)), ("sum", 1.0)):
        plain = {"+": [share] * len(parts), "-": [-share] * len(parts)}
        weighted = {sign: [share * weight for weight in own] for sign, own in weights.items()}
        for kind, factors in ((name, plain), (f"weighted {name}", weighted)):
            sums = {sign: fit.total(parts, own)[site] for sign, own in factors.items()}
            # a step of its own, because `add` refuses a vector of zeros, and every weight may be 0
            steps = {sign: Step(Add(vector), site, span) for sign, vector in sums.items()}
            programs |= {f"{kind} {sign}": Program((step,)) for sign, step in steps.items()}
    return programs


def simultaneous(directions: Mapping[str, Directions], layers: Mapping[str, int], scalar: float, span: Where) -> Program:
    """Every behaviour's direction at its own layer, all times one scalar."""
    steered = (add({Site(layer): directions[name][Site(layer)]}, scalar, span) for name, layer in layers.items())
    return sum(steered, Program())


def sweep(
    folder: Folder, runner: Runner, behaviours: Sequence[Behaviour], programs: Mapping[float, Program]
) -> dict[float, dict[str, Score]]:
    """Every behaviour's tune items at every scalar of simultaneous steering; rows in sweep_rows.jsonl, scores in sweep.json."""
    asked = [Asked(f"{s:g}", b.name, item, program) for s, program in programs.items() for b in behaviours for item in b.tune]
    found = grouped(ask(folder, "sweep_rows.jsonl", runner, asked))
    scores = {s: {b.name: score(found[f"{s:g}", b.name]) for b in behaviours} for s in programs}
    points = [{"scalar": s, "behaviours": {name: asdict(one) for name, one in own.items()}} for s, own in scores.items()]
    folder.write_json("sweep.json", {"points": points})
    return scores


def best_scalar(found: Mapping[float, Mapping[str, Score]], sign: int, max_faulty: float) -> float:
    """The scalar of this sign that moves the mean matching score furthest while the model still chooses on every behaviour; 0
    where there is none."""
    usable = [s for s, own in found.items() if s * sign > 0 and all(one.usable(max_faulty) for one in own.values())]
    candidates = [0.0, *usable]
    return max(candidates, key=lambda s: (sign * fmean(one.score for one in found[s].values()), -abs(s)))


def cosines(directions: Mapping[str, Directions]) -> dict[str, list[list[float]]]:
    """The cosine of each two behaviours' directions, by site. Far from 0, steering one is likely to move the other."""
    sites = next(iter(directions.values()))
    units = {site: normalize(torch.stack([own[site].vector for own in directions.values()]), dim=1) for site in sites}
    return {str(site): (unit @ unit.mT).tolist() for site, unit in units.items()}
