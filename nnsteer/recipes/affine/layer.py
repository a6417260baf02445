"""Where r is read and written: the layer that standardises best on the tune split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from nnsteer.measure.standardisation import by_method, curve, score
from nnsteer.program.direction import Direction, Directions
from nnsteer.program.program import affine
from nnsteer.study.cells import Variant
from nnsteer.study.rows import Row
from nnsteer.study.run import Run
from nnsteer.texts.refusal import SIDES
from nnsteer.texts.sets import PromptSet

ALPHAS = (0.0, 0.5, 1.0)


def best_layer(run: Run, directions: Directions, sets: Sequence[PromptSet]) -> Direction:
    """The direction whose site gives ACE the highest standardisation score on the harmful and the
    harmless tune prompts; ties go to the earlier. Every trial is kept in layer.json."""
    variants = [
        Variant(f"{site} {alpha}", affine(direction, alpha), {"method": str(site), "alpha": alpha})
        for (site, direction), alpha in product(directions.items(), ALPHAS)
    ]
    axes = {variant.name: variant.axes for variant in variants}
    answers = by_method(run.ask(variants, sets), axes)
    trials = {site: trial(at_site, sets) for site, at_site in answers.items()}
    best = max(directions, key=lambda site: (trials[str(site)]["score"], -site.layer))
    run.folder.write_json("layer.json", {"chosen": str(best), "trials": trials})
    return directions[best]


def trial(answers: Mapping[float, Sequence[Row]], sets: Sequence[PromptSet]) -> dict:
    """The score of one site, and the refused shares that it comes from, by alpha."""
    curves = [curve(answers, prompt_set.name) for prompt_set in sets]
    means = [side.refused.mean(axis=0).tolist() for side in curves]
    refused = dict(zip(SIDES, means, strict=True))
    return {"score": score(ALPHAS, *curves), "alphas": list(ALPHAS), "refused": refused}
