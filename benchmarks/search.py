"""The condition point search: its passes, its exact sweep, and a grid of thresholds as CAST's
library has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
from torch import Tensor

from benchmarks.extraction import batches_of, forwards
from benchmarks.measure import Measured, paired, timed
from benchmarks.models import Settings, opened, prompts
from nnsteer import Condition, Site, fit, of_prompts
from nnsteer.fit.threshold import condition_point, sweep
from nnsteer.texts.contrast import Text

THRESHOLDS = 600  # of the grid, each on both sides, with one F1 each; the published search spans 0 to 0.06 by 0.0001
Scores = Mapping[Site, tuple[Tensor, Tensor]]


def search(settings: Settings) -> Iterator[Measured]:
    """All layers, on both sides' prompts. Ends the run if the sweep's point is not the best of all
    cuts."""
    for model in opened(settings):
        runner = model.runner
        sides = [prompts(side, settings.searched) for side in ("harmful", "harmless")]
        directions = fit.mean_difference(
            runner.moments(of_prompts(*(side[:64] for side in sides)), model.sites)
        )
        conditions = [Condition(directions[site], 0.0) for site in model.sites]
        found = [runner.scores(side, conditions) for side in sides]
        scores = {site: (found[0][i], found[1][i]) for i, site in enumerate(model.sites)}
        if by_sweep(scores) != by_every_cut(scores):
            raise SystemExit(
                f"{model.name}: the sweep is not exact: {by_sweep(scores)}, {by_every_cut(scores)}"
            )
        batches = [
            batch
            for side in sides
            for batch in batches_of(runner, [Text(prompt) for prompt in side])
        ]
        subjects = {
            "transformers forward": timed(partial(forwards, model.plain, batches)),
            "nnsteer, scores of all layers": timed(
                lambda r=runner, s=sides, c=conditions: [r.scores(side, c) for side in s]
            ),
            "nnsteer, exact sweep": timed(partial(by_sweep, scores)),
            f"grid of {THRESHOLDS} thresholds": timed(partial(by_grid, scores)),
        }
        yield paired(
            f"condition search, {settings.searched} prompts a side",
            model.name,
            "s",
            subjects,
            settings.rounds,
        )


def by_sweep(scores: Scores) -> float:
    """The best F1 of any cut."""
    return condition_point({site: sweep(*both) for site, both in scores.items()}).f1


def by_every_cut(scores: Scores) -> float:
    """The same by trying each distinct score as a threshold."""
    return max(
        best_f1(np.unique(np.concatenate([p.numpy(), n.numpy()]))[:-1], p, n)
        for p, n in scores.values()
    )


def by_grid(scores: Scores) -> float:
    """The best F1 of evenly spaced thresholds."""
    return max(
        best_f1(np.linspace(min(p.min(), n.min()), max(p.max(), n.max()), THRESHOLDS), p, n)
        for p, n in scores.values()
    )


def best_f1(thresholds: np.ndarray, positive: Tensor, negative: Tensor) -> float:
    """Of firing above or at and below each of the thresholds."""
    best, p, n = 0.0, positive.numpy(), negative.numpy()
    for threshold in thresholds:
        for side in (np.greater, np.less_equal):
            hits, alarms = side(p, threshold).sum(), side(n, threshold).sum()
            best = max(best, 2 * hits / (hits + alarms + len(p)))
    return float(best)
