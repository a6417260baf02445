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
    """The rate of 0s and 1s with Wilson's interval, or the mean of other values with a
    bootstrap's. Shares, such as those of several samples, are other values, `binary` or not."""
    own = np.asarray(values, dtype=float)
    own = own[~np.isnan(own)]
    if not len(own):
        return Estimate(math.nan, math.nan, math.nan, 0)
    if binary and np.isin(own, (0, 1)).all():
        return wilson(int(own.sum()), len(own))
    return Estimate(own.mean(), *bootstrap(own, seed), len(own))


def compare(
    values: Sequence[float], baseline: Sequence[float], binary: bool, seed: int = 0
) -> Difference:
    """How far `values` lie above `baseline`, pair by pair. 0s and 1s: Newcombe's interval and
    McNemar's exact test. Others: a paired bootstrap, and a test that flips the signs of the
    differences."""
    pairs = np.column_stack([values, baseline]).astype(float)
    own, other = pairs[~np.isnan(pairs).any(axis=1)].T
    if not len(own):
        return Difference(math.nan, math.nan, math.nan, math.nan, 0)
    gaps = own - other
    if binary and np.isin([own, other], (0, 1)).all():
        return Difference(gaps.mean(), *newcombe(own, other), mcnemar(own, other), len(gaps))
    return Difference(gaps.mean(), *bootstrap(gaps, seed), sign_flip(gaps, seed), len(gaps))


def bootstrap(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The ends of the BCa bootstrap interval of the mean (Efron 1987). One value tells nothing of
    its spread: NaN. Values that are all the same give that value twice."""
    if len(values) < 2:
        return math.nan, math.nan
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    rng = np.random.default_rng(seed)
    ends = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, confidence_level=LEVEL, method="BCa", rng=rng
    ).confidence_interval
    return ends.low, ends.high


def sign_flip(gaps: np.ndarray, seed: int = 0) -> float:
    """The p-value of paired differences by chance: how often random signs give a sum as far from
    zero. Valid at every n where the two sides could be exchanged. `scipy.stats.permutation_test`
    gives the same, twenty times slower."""
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(FLIPS, len(gaps)))
    far = abs(gaps.sum()) * (1 - 1e-9)  # equal sums differ in their last digits
    return (1 + (np.abs(signs @ gaps) >= far).sum()) / (1 + FLIPS)


def mcnemar(values: np.ndarray, baseline: np.ndarray) -> float:
    """The exact conditional p-value: a binomial test of the pairs that differ. It errs on the safe
    side."""
    up, down = int((values > baseline).sum()), int((values < baseline).sum())
    return stats.binomtest(up, up + down).pvalue if up + down else 1.0


def newcombe(values: np.ndarray, baseline: np.ndarray) -> tuple[float, float]:
    """The ends of the interval of a difference between paired rates: method 10 of Newcombe,
    Statistics in Medicine 17 (1998), 2635-2650, which keeps a width where no pair differs."""
    n = len(values)
    own, other = wilson(int(values.sum()), n), wilson(int(baseline.sum()), n)
    both, one, two = (int(x.sum()) for x in (values * baseline, values, baseline))
    spread = math.sqrt(one * (n - one) * two * (n - two))
    excess = both * (n - one - two + both) - (one - both) * (two - both)
    phi = (max(excess - n / 2, 0.0) if excess > 0 else excess) / spread if spread else 0.0

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    gap = own.value - other.value
    down = reach(own.value - own.low, other.high - other.value)
    return gap - down, gap + reach(own.high - own.value, other.value - other.low)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values that hold for a whole family at once (Holm 1979), in the order given. A NaN is no
    test and stays one."""
    p = np.asarray(p_values, dtype=float)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    p[order] = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)).clip(max=1.0)
    return p.tolist()
