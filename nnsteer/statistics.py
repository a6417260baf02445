"""Rates and means with their error bars, and comparisons prompt by prompt. Intervals are 95 %,
tests two-sided.

A NaN is a value that could not be had (a failed judgement). It is left out, with its partner where
values come in pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 2000  # for an interval's ends, as Efron & Tibshirani advise for BCa
FLIPS = 9999  # for a p-value: ten thousand with the data themselves


@dataclass(frozen=True)
class Estimate:
    """A rate or mean of `n` values with its interval; all NaN where there is no value."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Difference:
    """The mean difference of `n` pairs with its interval, and the p-value of there being none."""

    value: float
    low: float
    high: float
    p: float
    n: int


def wilson(successes: int, n: int) -> Estimate:
    """A rate with Wilson's interval."""
    interval = stats.binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return Estimate(successes / n, interval.low, interval.high, n)


def estimate(values: Sequence[float], binary: bool, seed: int = 0) -> Estimate:
    """The rate of 0s and 1s with Wilson's interval, or the mean of others with a bootstrap's."""
    numbers = np.asarray(values, dtype=float)
    numbers = numbers[~np.isnan(numbers)]
    n = len(numbers)
    if not n:
        return Estimate(math.nan, math.nan, math.nan, 0)
    if binary:
        return wilson(int(numbers.sum()), n)
    return Estimate(numbers.mean(), *bootstrap(numbers, seed), n)


def compare(
    values: Sequence[float], baseline: Sequence[float], binary: bool, seed: int = 0
) -> Difference:
    """How far `values` lie above `baseline`, pair by pair. 0s and 1s: Newcombe's interval and
    McNemar's exact test. Others: a paired bootstrap, and a test that flips the signs of the
    differences."""
    pairs = np.column_stack([np.asarray(values, dtype=float), np.asarray(baseline, dtype=float)])
    first, second = pairs[~np.isnan(pairs).any(axis=1)].T
    gaps = first - second
    if not len(gaps):
        return Difference(math.nan, math.nan, math.nan, math.nan, 0)
    if binary:
        interval, p = newcombe(first, second), mcnemar(first, second)
    else:
        interval, p = bootstrap(gaps, seed), sign_flip(gaps, seed)
    return Difference(gaps.mean(), *interval, p, len(gaps))


def bootstrap(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The ends of the BCa bootstrap interval of the mean (Efron 1987). One value tells nothing of
    its spread: NaN. Values that are all the same give that value twice."""
    if len(values) < 2:
        return math.nan, math.nan
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    rng = np.random.default_rng(seed)
    interval = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, confidence_level=LEVEL, method="BCa", rng=rng
    ).confidence_interval
    return interval.low, interval.high


def sign_flip(gaps: np.ndarray, seed: int = 0) -> float:
    """The p-value of paired differences by chance: how often random signs give a sum as far from
    zero. Valid at every n where the two sides could be exchanged. `scipy.stats.permutation_test`
    gives the same, twenty times slower."""
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(FLIPS, len(gaps)))
    least = abs(gaps.sum()) * (1 - 1e-9)  # equal sums differ in their last digits
    as_far = np.abs(signs @ gaps) >= least
    return (1 + as_far.sum()) / (1 + FLIPS)


def mcnemar(values: np.ndarray, baseline: np.ndarray) -> float:
    """The exact conditional p-value: a binomial test of the pairs that differ; on the safe side."""
    up, down = int((values > baseline).sum()), int((values < baseline).sum())
    return stats.binomtest(up, up + down).pvalue if up + down else 1.0


def newcombe(values: np.ndarray, baseline: np.ndarray) -> tuple[float, float]:
    """The ends of the interval of a difference between paired rates: method 10 of Newcombe,
    Statistics in Medicine 17 (1998), 2635-2650, which keeps a width where no pair differs."""
    n = len(values)
    first, second = wilson(int(values.sum()), n), wilson(int(baseline.sum()), n)
    both, one, two = (int(x.sum()) for x in (values * baseline, values, baseline))
    spread = math.sqrt(one * (n - one) * two * (n - two))
    excess = both * (n - one - two + both) - (one - both) * (two - both)
    phi = (max(excess - n / 2, 0.0) if excess > 0 else excess) / spread if spread else 0.0

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    gap = first.value - second.value
    down = reach(first.value - first.low, second.high - second.value)
    return gap - down, gap + reach(first.high - first.value, second.value - second.low)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values that hold for a whole family at once (Holm 1979), in the order given. A NaN is no
    test and stays one."""
    p = np.asarray(p_values, dtype=float)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    p[order] = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)).clip(max=1.0)
    return p.tolist()
