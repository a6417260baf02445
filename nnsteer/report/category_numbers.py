"""What a categories run says in numbers: refused shares with their intervals, the conditions'
quality, fits and correlations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import curve_fit

from nnsteer.folder import Folder
from nnsteer.measure.refusal import is_broken, is_refused
from nnsteer.program.condition import fires
from nnsteer.report.results import nan_to_null
from nnsteer.statistics import LEVEL, RESAMPLES, compare, wilson
from nnsteer.study.rows import read_rows

Place = tuple[str, str]
"""A set (seen, unseen, harmful) and a category or kind in it."""
Verdicts = Mapping[tuple[str, Place], Mapping[str, bool]]
"""By variant and place, then by prompt."""


@dataclass(frozen=True)
class Answers:
    """Whether each answer refused, and whether it was broken."""

    refused: Verdicts
    broken: Verdicts

    @property
    def places(self) -> list[Place]:
        """Every category and kind that was asked about."""
        return list(dict.fromkeys(place for _, place in self.refused))

    def rate(self, variant: str, places: Iterable[Place]) -> dict[str, Any] | None:
        """The refused share with Wilson's interval, and the broken one; None where nothing was
        asked."""
        keys = [(variant, place) for place in places if (variant, place) in self.refused]
        refused = [value for key in keys for value in self.refused[key].values()]
        if not refused:
            return None
        broken = fmean(value for key in keys for value in self.broken[key].values())
        return asdict(wilson(sum(refused), len(refused))) | {"broken": broken}

    def rates(self, variants: Mapping[str, str], places: Sequence[Place]) -> dict[str, Any]:
        """The rate of each of some variants."""
        return {name: self.rate(variant, places) for name, variant in variants.items()}

    def gap(self, variant: str, other: str, places: Iterable[Place]) -> dict[str, Any]:
        """How much more the variant refuses than the other, prompt by prompt."""
        more, less = [], []
        for place in places:
            for prompt, refused in self.refused[variant, place].items():
                more.append(refused)
                less.append(self.refused[other, place][prompt])
        return nan_to_null(asdict(compare(more, less, binary=True)))


def read_answers(folder: Folder, sides: Mapping[str, str]) -> Answers:
    """The answers to some sets, each under the name of its side."""
    refused: dict[tuple[str, Place], dict[str, bool]] = {}
    broken: dict[tuple[str, Place], dict[str, bool]] = {}
    for row in read_rows(folder, sides):
        key = (row.variant, (sides[row.set], row.kind))
        refused.setdefault(key, {})[row.prompt] = is_refused(row)
        broken.setdefault(key, {})[row.prompt] = is_broken(row)
    return Answers(refused, broken)


def conditions(points: Mapping[str, dict]) -> dict[str, dict]:
    """Each condition's point, its F1 on every split, and on the test split how often it fires on
    its own category, on the others that it was told from, and on the unseen ones."""
    return {target: condition(target, point) for target, point in points.items()}


def condition(target: str, point: dict) -> dict[str, Any]:
    """One of them."""
    threshold, side, others = point["threshold"], point["fires_when"], point["others"]
    fired: dict[str, dict[str, list[bool]]] = {}
    for split, groups in point["scores"].items():
        fired[split] = {g: [fires(x, threshold, side) for x in groups[g]] for g in groups}

    def pooled(split: str, groups: Iterable[str]) -> list[bool]:
        return [verdict for group in groups for verdict in fired[split][group]]

    f1 = {split: balanced_f1(pooled(split, [target]), pooled(split, others)) for split in fired}
    unseen = [group for group in fired["test"] if group not in (target, *others)]
    rates: dict[str, dict | None] = {"unseen": None}
    for name, groups in (("own", [target]), ("others", others), ("unseen", unseen)):
        if verdicts := pooled("test", groups):
            rates[name] = asdict(wilson(sum(verdicts), len(verdicts)))
    return {
        "layer": point["site"]["layer"],
        "threshold": threshold,
        "fires_when": side,
        "f1": f1,
        **rates,
        "by_category": {group: fmean(verdicts) for group, verdicts in fired["test"].items()},
    }


def f1_of(recall: Any, false_alarms: Any) -> Any:
    """F1 where both sides weigh the same."""
    return 2 * recall / (recall + false_alarms + 1)


def balanced_f1(positive: Sequence[bool], negative: Sequence[bool]) -> dict[str, float]:
    """F1 of verdicts that counts both sides alike, with a bootstrap interval over the prompts of
    each; where a side has no spread to resample, with Wilson's ends of both rates."""

    def f1(hits: np.ndarray, alarms: np.ndarray, axis: int = -1) -> np.ndarray:
        return f1_of(hits.mean(axis=axis), alarms.mean(axis=axis))

    sides = np.array(positive, dtype=float), np.array(negative, dtype=float)
    if any(np.ptp(side) == 0 for side in sides):
        recall, false = (wilson(int(side.sum()), len(side)) for side in sides)
        low, high = f1_of(recall.low, false.high), f1_of(recall.high, false.low)
    else:
        settings = {"n_resamples": RESAMPLES, "confidence_level": LEVEL, "method": "percentile"}
        kept = stats.bootstrap(sides, f1, **settings, rng=np.random.default_rng(0))
        low, high = kept.confidence_interval
    return {"value": float(f1(*sides)), "low": float(low), "high": float(high)}


def line(x: Sequence[float], y: Sequence[float]) -> dict[str, float] | None:
    """A straight line by least squares, with the interval of its slope; None where all x are the
    same."""
    if len(set(x)) < 2:
        return None
    fit = stats.linregress(x, y)
    reach = stats.t.ppf((1 + LEVEL) / 2, len(x) - 2) * fit.stderr
    slope = {"slope": fit.slope, "low": fit.slope - reach, "high": fit.slope + reach}
    return slope | {"intercept": fit.intercept, "r2": fit.rvalue**2}


def plateau(n: Sequence[float], value: Sequence[float]) -> dict[str, float] | None:
    """value = top - fall * n^-rate, by least squares; None where it can't be fitted."""
    start, bounds = (max(value), 0.5, 0.5), ([0, 0, 0.01], [1, 10, 4])
    try:
        fit, _ = curve_fit(curve, n, value, p0=start, bounds=bounds)
    except RuntimeError:
        return None
    return dict(zip(("top", "fall", "rate"), fit, strict=True))


def curve(n: Any, top: float, fall: float, rate: float) -> Any:
    """The saturation curve."""
    return top - fall * np.asarray(n, dtype=float) ** -rate


def correlation(x: Sequence[float], y: Sequence[float]) -> dict[str, float] | None:
    """Pearson's r with its interval, and Spearman's; None where one side is constant."""
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    pearson = stats.pearsonr(x, y)
    low, high = pearson.confidence_interval(LEVEL)
    rho = stats.spearmanr(x, y).statistic
    return {"r": pearson.statistic, "low": low, "high": high, "rho": rho, "n": len(x)}
