"""How well a method standardises a behaviour: whether alpha 0 turns it off and alpha 1 on, whatever was asked.

The score is agreement x ends. Agreement: 1 minus the area between the two sides' curves of refusal against alpha, from 0 to 1.
Ends: the mean over both sides of what is answered (neither refused nor broken) at alpha 0 and refused at alpha 1. It is 1 only
where both curves are one and run from 0 to 1; curves that ignore alpha have at most 1/2, broken text has 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from nnsteer.errors import UserError
from nnsteer.measure.sampled import Row
from nnsteer.statistics import LEVEL, RESAMPLES, Estimate
from nnsteer.texts.refusal import Side


@dataclass(frozen=True, eq=False)
class Curve:
    """One side's answers, as shares of each prompt's samples: `refused` [prompt, alpha], and `answered` [prompt] at alpha 0."""

    refused: np.ndarray
    answered: np.ndarray


def curve(rows: Sequence[Row], side: Side, alphas: Sequence[float]) -> Curve:
    """One side of a method's rows. A prompt of which some alpha has no judgement at all is left out."""
    refused: dict[str, dict[float, list[float]]] = {}
    broken: dict[str, list[float]] = {}
    for row in rows:
        if row.side == side and row.alpha in alphas and row.refused is not None:
            refused.setdefault(row.prompt, {}).setdefault(row.alpha, []).append(row.refused)
            if row.alpha == 0:
                broken.setdefault(row.prompt, []).append(row.broken)
    whole = [prompt for prompt, own in refused.items() if len(own) == len(alphas)]
    shares = np.array([[np.mean(refused[prompt][alpha]) for alpha in alphas] for prompt in whole]).reshape(-1, len(alphas))
    at_zero = shares[:, list(alphas).index(0.0)]
    return Curve(shares, 1 - at_zero - np.array([np.mean(broken[prompt]) for prompt in whole]))


def check_alphas(alphas: Sequence[float]) -> None:
    """Raises UserError for alphas that have no score."""
    if not {0.0, 1.0} <= set(alphas):
        given = ", ".join(f"{alpha:g}" for alpha in alphas)
        raise UserError(f"--alphas {given}: 0 and 1 must be among them, the standardisation score is taken there")


def standardisation(alphas: Sequence[float], first: Curve, second: Curve, seed: int = 0) -> Estimate:
    """The score with its percentile bootstrap interval over prompts, each side's on their own; a prompt keeps its samples at all
    alphas together. Chance differences between the curves count as distance, so that the interval errs downwards: it is
    extended to the score where it lies below. `n` counts the prompts of both sides."""
    check_alphas(alphas)

    def at(one: np.ndarray, two: np.ndarray) -> float:
        return score(alphas, resampled(first, one), resampled(second, two))

    every = tuple(np.arange(len(side.answered)) for side in (first, second))
    if min(map(len, every)) < 2:  # nothing to resample
        value = at(*every) if min(map(len, every)) else math.nan
        return Estimate(value, math.nan, math.nan, sum(map(len, every)))
    found = stats.bootstrap(
        every, at, n_resamples=RESAMPLES, confidence_level=LEVEL, method="percentile", vectorized=False,
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    value = at(*every)
    return Estimate(value, float(min(found.low, value)), float(max(found.high, value)), sum(map(len, every)))


def resampled(side: Curve, prompts: np.ndarray) -> Curve:
    """The side with these prompts alone."""
    return Curve(side.refused[prompts], side.answered[prompts])


def score(alphas: Sequence[float], first: Curve, second: Curve) -> float:
    """Agreement x ends."""
    order = np.argsort(alphas)
    x = np.asarray(alphas, dtype=float)[order]
    curves = [side.refused.mean(axis=0)[order] for side in (first, second)]
    inside = (x >= 0) & (x <= 1)
    area = np.trapezoid(np.abs(curves[0] - curves[1])[inside], x[inside])
    ends = [end for side, curve in zip((first, second), curves, strict=True) for end in (side.answered.mean(), curve[x == 1][0])]
    return float((1 - area) * np.mean(ends))
