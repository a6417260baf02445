"""Up the coefficients: both domains' documents under each way to steer while the skill lasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan

from nnsteer.errors import UserError
from nnsteer.measure import tradeoff
from nnsteer.measure.tradeoff import CHOSEN, DRAWS, MATCHED, PERMUTED, UNSTEERED, TradeOff
from nnsteer.program.direction import Directions
from nnsteer.program.program import Program, add
from nnsteer.program.span import ALL
from nnsteer.recipes.skills import options
from nnsteer.study.cells import Variant
from nnsteer.study.rows import Row
from nnsteer.study.run import Run
from nnsteer.texts.skills import DOMAINS, Domains

__all__ = ["CHOSEN", "DRAWS", "MATCHED", "PERMUTED"]


def up(
    run: Run,
    config: options.Config,
    domains: Domains,
    split: str,
    ways: Mapping[str, Sequence[Directions]],
    coefficients: Sequence[float],
) -> dict[str, TradeOff]:
    """What is left of both domains' accuracy, coefficient by coefficient, where each of `ways` adds
    its directions, which the documents take in turn. The first coefficient is 0, the unsteered
    model, and is asked once for all."""
    rows: list[Row] = []

    def ask(variants: Sequence[Variant], step: int) -> None:
        for prompt_set in options.sets(config, domains, split, step):
            rows.extend(run.ask(variants, [prompt_set]))  # each set begins with the first program

    ask([Variant(UNSTEERED, Program(), {"place": UNSTEERED, "coefficient": 0.0})], 0)
    for domain in DOMAINS:
        if not any(row.values["hits"]["top1"] for row in rows if row.set == f"{domain} {split}"):
            what = f"{domain}: the unsteered model predicts no token of its {split} documents"
            raise UserError(f"{what}; give another model or other documents")
    step, at = 1, dict.fromkeys(ways, 1)
    while at:
        ask([steered(place, ways[place], coefficients[i]) for place, i in at.items()], step)
        tables = tradeoff.trade_offs(rows, run.folder.read_json("variants.json"), split)
        left = {place: table.skill.relative()[-1] for place, table in tables.items()}
        step, at = step + 1, tradeoff.further(at, left, len(coefficients))
    return tables


def steered(place: str, directions: Sequence[Directions], coefficient: float) -> Variant:
    """Adds each direction, times the coefficient, to every token at its layers."""
    programs = tuple(add(d, coefficient, ALL) for d in directions)
    axes: dict[str, str | float] = {"place": place, "coefficient": coefficient}
    return Variant(f"{place} {coefficient}", programs, axes)


def choose(run: Run, tried: Mapping[str, TradeOff]) -> tuple[str, float]:
    """The best place, and the coefficient at which a tenth of the skill is gone there; kept in
    choice.json with the worst place and every place's T@0.9."""
    points = {place: table.at(0.9) for place, table in tried.items()}
    retained = {p: point.retained for p, point in points.items() if not isnan(point.retained)}
    if not retained:
        what = "steering takes a tenth of the skill away at no layer of the tune split"
        raise UserError(f"{what}; give larger --coefficients")
    best, worst = (pick(retained, key=retained.__getitem__) for pick in (max, min))
    choice = {"best": best, "worst": worst, "coefficient": points[best].coefficient}
    run.folder.write_json("choice.json", choice | {"kept": dict.fromkeys(points) | retained})
    return best, points[best].coefficient
