"""What steering a skill away costs elsewhere: accuracy on the skill and on what is to be retained,
coefficient by coefficient (*Extending Activation Steering to Broad Skills and Multiple Behaviours*,
arXiv 2403.05767)."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from nnsteer.statistics import LEVEL, RESAMPLES, Estimate
from nnsteer.texts.skills import DOMAINS

STOP, SLOW, SKIP = 0.05, 0.15, 5
# what stands for a layer among the places of a run's variants
UNSTEERED, CHOSEN = "unsteered", "chosen"
PERMUTED, MATCHED = "permuted", "permuted, norm-matched"
DRAWS = 16  # permutations that documents take in turn: one alone can move accuracy far either way


def further(at: Mapping[str, int], left: Mapping[str, float], end: int) -> dict[str, int]:
    """The published walk up the coefficients: `at` says how far it is at each place and `left` what
    share of the skill is left there. It ends below 5 %, and after the last coefficient, the one
    before `end`; below 15 % it goes five coefficients further."""
    strides = {place: SKIP if left[place] < SLOW else 1 for place in at if left[place] >= STOP}
    return {place: at[place] + n for place, n in strides.items() if at[place] + n < end}


@dataclass(frozen=True, eq=False)
class Counts:
    """Of one domain, at each coefficient and for each document: how many tokens were predicted, and
    how many of them right, [coefficient, document]."""

    tokens: np.ndarray
    right: np.ndarray

    def accuracy(self, drawn: np.ndarray | None = None) -> np.ndarray:
        """The share of all tokens predicted right, [..., coefficient], of the documents drawn,
        [..., draw], or of all."""
        drawn = np.arange(self.tokens.shape[1]) if drawn is None else drawn
        right, tokens = (table[:, drawn].sum(-1) for table in (self.right, self.tokens))
        return np.moveaxis(right / tokens, 0, -1)

    def relative(self, drawn: np.ndarray | None = None) -> np.ndarray:
        """The same as a share of the accuracy at the first coefficient, the unsteered model's; NaN
        where that is 0."""
        accuracy = self.accuracy(drawn)
        unsteered = accuracy[..., :1]
        return np.where(unsteered > 0, accuracy, np.nan) / unsteered


class Point(NamedTuple):
    """A point between two coefficients of a walk."""

    retained: float
    coefficient: float


@dataclass(frozen=True, eq=False)
class TradeOff:
    """One place to steer, at growing coefficients; the first is 0."""

    coefficients: tuple[float, ...]
    skill: Counts
    retained: Counts

    def at(self, level: float) -> Point:
        """Where the skill first falls to `level`; NaN where it never does."""
        skill = self.skill.relative()
        across = self.retained.relative(), np.array(self.coefficients)
        return Point(*(float(at_level(level, skill, values)) for values in across))


def trade_offs(
    rows: Iterable[Any], axes: Mapping[str, Mapping[str, Any]], split: str, top: str = "top1"
) -> dict[str, TradeOff]:
    """What was measured on a split at each place, the unsteered model's rows first. A row is a
    study's: one document, its number as its kind, under a variant, whose place and coefficient are
    its `axes`; its value is `skill.hits`. `top` is top1 or top10."""
    places: dict = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in sorted(rows, key=lambda row: int(row.kind)):
        at = axes[row.variant]
        places[at["place"]][at["coefficient"]][row.set].append(row.values["hits"])
    unsteered = places.pop(UNSTEERED)

    def counts(domain: str, steps: Iterable[Mapping]) -> Counts:
        hits = [step[f"{domain} {split}"] for step in steps]
        tokens, right = ([[h[name] for h in step] for step in hits] for name in ("tokens", top))
        return Counts(np.array(tokens), np.array(right))

    tables = {}
    for place, steered in places.items():
        steps = dict(sorted((unsteered | steered).items()))
        skill, retained = (counts(domain, steps.values()) for domain in DOMAINS)
        tables[place] = TradeOff(tuple(steps), skill, retained)
    return tables


Summary = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From the relative skill and the relative rest, [..., coefficient], to a number, [...]."""


def gap(skill: np.ndarray, retained: np.ndarray) -> np.ndarray:
    """The most that the retained share lies above the skill's; 0 where it never does. A maximum of
    noisy values leans up."""
    return (retained - skill).max(-1)


def kept_at(level: float) -> Summary:
    """T@level: the share retained where the skill first falls to `level`, on the line between the
    coefficients around it. NaN where it never falls so far."""
    return lambda skill, retained: at_level(level, skill, retained)


def at_level(level: float, skill: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values` [..., coefficient] where `skill` first falls to `level` (below 1), interpolated."""
    below = skill <= level
    after = below.argmax(-1, keepdims=True)
    before = np.maximum(after - 1, 0)
    skill_0, skill_1 = (np.take_along_axis(skill, i, -1)[..., 0] for i in (before, after))
    value_0, value_1 = (np.take_along_axis(values, i, -1)[..., 0] for i in (before, after))
    fell = below.any(-1) & (skill_0 > skill_1)
    part = np.where(fell, skill_0 - level, np.nan) / (skill_0 - skill_1)
    return value_0 + part * (value_1 - value_0)


def estimate(
    of: TradeOff, summary: Summary, minus: TradeOff | None = None, seed: int = 0
) -> Estimate:
    """A summary, or how far it lies above that of `minus`, measured on the same documents; with its
    95 % percentile interval, both domains' documents being drawn anew (Efron & Tibshirani 1993,
    chapter 13). The interval is NaN where some draw has no value."""
    tables = [of] if minus is None else [of, minus]
    documents = tuple(np.arange(counts.tokens.shape[1]) for counts in (of.skill, of.retained))

    def value(skill: np.ndarray, retained: np.ndarray, axis: int = -1) -> np.ndarray:
        del axis  # scipy always names the last one
        drawn = [summary(t.skill.relative(skill), t.retained.relative(retained)) for t in tables]
        return np.subtract.reduce(drawn)

    whole, n = float(value(documents[0], documents[1])), min(map(len, documents))
    if np.isnan(whole) or n < 2:
        return Estimate(whole, np.nan, np.nan, n)
    with warnings.catch_warnings():
        # a draw without a value: the ends are NaN
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        ends = stats.bootstrap(
            documents,
            value,
            n_resamples=RESAMPLES,
            batch=100,
            confidence_level=LEVEL,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Estimate(whole, float(ends.low), float(ends.high), n)
