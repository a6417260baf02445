"""What steering a skill away costs elsewhere: accuracy on the skill and on what is to be retained, coefficient by coefficient
(*Extending Activation Steering to Broad Skills and Multiple Behaviours*, arXiv 2403.05767)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from nnsteer.statistics import LEVEL, RESAMPLES, Estimate

STOP, SLOW, SKIP = 0.05, 0.15, 5  # the published walk: end below 5 % of the skill, below 15 % go on five coefficients further


def walk(coefficients: Sequence[float], relative: Callable[[int, float], float]) -> list[float]:
    """The coefficients that were tried: `relative(n, coefficient)` says how much of the skill is left at the n-th try, as a share
    of the unsteered model's, and so how the walk goes on."""
    tried: list[float] = []
    at = 0
    while at < len(coefficients):
        tried.append(coefficients[at])
        left = relative(len(tried) - 1, coefficients[at])
        if left < STOP:
            break
        at += SKIP if left < SLOW else 1
    return tried


@dataclass(frozen=True, eq=False)
class Counts:
    """Of one domain, at each coefficient and for each document: how many tokens were predicted, and how many of them right,
    [coefficient, document]."""

    tokens: np.ndarray
    right: np.ndarray

    def accuracy(self, drawn: np.ndarray | None = None) -> np.ndarray:
        """The share of all tokens predicted right, [..., coefficient], of the documents drawn, [..., draw], or of all."""
        drawn = np.arange(self.tokens.shape[1]) if drawn is None else drawn
        right, tokens = (np.moveaxis(table[:, drawn].sum(-1), 0, -1) for table in (self.right, self.tokens))
        return right / tokens

    def relative(self, drawn: np.ndarray | None = None) -> np.ndarray:
        """The same as a share of the accuracy at the first coefficient, the unsteered model's."""
        accuracy = self.accuracy(drawn)
        return np.divide(accuracy, accuracy[..., :1], out=np.full_like(accuracy, np.nan), where=accuracy[..., :1] > 0)


class Point(NamedTuple):
    """A place between two coefficients of a walk."""

    retained: float
    coefficient: float


@dataclass(frozen=True, eq=False)
class TradeOff:
    """One way to steer, at growing coefficients; the first is 0."""

    coefficients: tuple[float, ...]
    skill: Counts
    retained: Counts

    def at(self, level: float) -> Point:
        """Where the skill first falls to `level`; NaN where it never does."""
        skill = self.skill.relative()
        across = (self.retained.relative(), np.array(self.coefficients))
        return Point(*(float(at_level(level, skill, values)) for values in across))


Summary = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From the relative skill and the relative rest, [..., coefficient], to a number, [...]."""


def gap(skill: np.ndarray, retained: np.ndarray) -> np.ndarray:
    """The most that the retained share lies above the skill's; 0 where it never does. A maximum of noisy values leans up."""
    return (retained - skill).max(-1)


def kept_at(level: float) -> Summary:
    """T@level: the share retained where the skill first falls to `level`, on the line between the coefficients around it. NaN
    where it never falls so far."""
    return lambda skill, retained: at_level(level, skill, retained)


def at_level(level: float, skill: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values` [..., coefficient] where `skill` first falls to `level` (below 1), interpolated."""
    below = skill <= level
    after = below.argmax(-1, keepdims=True)
    before = np.maximum(after - 1, 0)
    (s0, s1), (v0, v1) = ([np.take_along_axis(t, i, -1)[..., 0] for i in (before, after)] for t in (skill, values))
    fell = below.any(-1) & (s0 > s1)
    part = np.divide(s0 - level, s0 - s1, out=np.full_like(s0, np.nan), where=fell)
    return v0 + part * (v1 - v0)


def estimate(of: TradeOff, summary: Summary, seed: int = 0) -> Estimate:
    """A summary with its 95 % percentile interval, both domains' documents being drawn anew (Efron & Tibshirani 1993, chapter
    13). The interval is NaN where some draw has no value."""
    return resampled([of], lambda found: found[0], summary, seed)


def difference(a: TradeOff, b: TradeOff, summary: Summary, seed: int = 0) -> Estimate:
    """`a`'s summary minus `b`'s, with the interval of the same documents drawn for both."""
    return resampled([a, b], lambda found: found[0] - found[1], summary, seed)


def resampled(of: Sequence[TradeOff], combine: Callable[[list[np.ndarray]], np.ndarray], summary: Summary, seed: int) -> Estimate:
    """The combination of each one's summary; `of` were measured on the same documents."""
    documents = [np.arange(table.tokens.shape[1]) for table in (of[0].skill, of[0].retained)]

    def value(skill: np.ndarray, retained: np.ndarray, axis: int = -1) -> np.ndarray:
        del axis  # scipy always names the last one
        return combine([summary(one.skill.relative(skill), one.retained.relative(retained)) for one in of])

    found, n = float(value(documents[0], documents[1])), min(map(len, documents))
    if np.isnan(found) or n < 2:
        return Estimate(found, np.nan, np.nan, n)
    rng = np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # a draw without a value: the ends are NaN
        ends = stats.bootstrap(
            documents,
            value,
            n_resamples=RESAMPLES,
            batch=100,
            vectorized=True,
            confidence_level=LEVEL,
            method="percentile",
            rng=rng,
        ).confidence_interval
    return Estimate(found, float(ends.low), float(ends.high), n)
