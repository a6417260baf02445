"""Shares with their error bars."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import binomtest


@dataclass(frozen=True)
class Rate:
    """A share of `n` with its 95 % Wilson interval."""

    rate: float
    low: float
    high: float
    n: int


def wilson(successes: int, n: int) -> Rate:
    """The share and its interval."""
    interval = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return Rate(successes / n, interval.low, interval.high, n)
