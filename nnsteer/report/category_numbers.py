"""What a categories run says in numbers: refused shares with their intervals, the conditions' quality, fits and correlations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import curve_fit

from nnsteer.folder import Folder
from nnsteer.measure.answers import KEY
from nnsteer.program.condition import fires
from nnsteer.report.results import bare
from nnsteer.statistics import LEVEL, RESAMPLES, compare, wilson

Place = tuple[str, str]
"""A set (seen, unseen, harmful) and a category or kind in it."""


@dataclass(frozen=True)
class Answers:
    """Whether each answer refused, and whether it was broken, by variant and place and then by prompt."""

    refused: Mapping[tuple[str, Place], Mapping[str, bool]]
    broken: Mapping[tuple[str, Place], Mapping[str, bool]]

    @property
    def places(self) -> list[Place]:
        """Every category and kind that was asked about."""
        return list(dict.fromkeys(place for _, place in self.refused))

    def rate(self, variant: str, places: Iterable[Place]) -> dict[str, Any] | None:
        """The refused share with Wilson's interval, and the broken one; None where nothing was asked."""
        own = [(variant, place) for place in places if (variant, place) in self.refused]
        refused = [value for key in own for value in self.refused[key].values()]
        if not refused:
            return None
        broken = fmean(value for key in own for value in self.broken[key].values())
        return asdict(wilson(sum(refused), len(refused))) | {"broken": broken}

    def gap(self, variant: str, other: str, places: Iterable[Place]) -> dict[str, Any]:
        """How much more the variant refuses than the other, prompt by prompt."""
        pairs = [
            (refused, self.refused[other, place][prompt])
            for place in places
            for prompt, refused in self.refused[variant, place].items()
        ]
        one, two = zip(*pairs, strict=True)
        return bare(asdict(compare(one, two, binary=True)))


def read_answers(folder: Folder, name: str) -> Answers:
    """The answers of a rows file."""
    refused: dict[tuple[str, Place], dict[str, bool]] = {}
    broken: dict[tuple[str, Place], dict[str, bool]] = {}
    for row in folder.read_lines(name, KEY):
        key = (row["variant"], (row["side"], row["kind"]))
        refused.setdefault(key, {})[row["prompt"]] = row["refused"]
        broken.setdefault(key, {})[row["prompt"]] = row["broken"]
    return Answers(refused, broken)


def conditions(points: Mapping[str, dict]) -> dict[str, dict]:
    """Each condition's point, its F1 on every split, and on the test split how often it fires on its own category, on the others
    that it was told from, and on the unseen ones. F1 counts the category as often as all the others together."""
    found = {}
    for target, point in points.items():
        fired = {
            split: {
                group: [fires(score, point["threshold"], point["fires_when"]) for score in scores]
                for group, scores in groups.items()
            }
            for split, groups in point["scores"].items()
        }
        test = fired["test"]
        others = [value for group in point["others"] for value in test[group]]
        unseen = [value for group, own in test.items() if group not in (target, *point["others"]) for value in own]
        f1 = {
            split: balanced_f1(own[target], [value for group in point["others"] for value in own[group]])
            for split, own in fired.items()
        }
        found[target] = {
            "layer": point["site"]["layer"], "threshold": point["threshold"], "fires_when": point["fires_when"], "f1": f1,
            "own": asdict(wilson(sum(test[target]), len(test[target]))), "others": asdict(wilson(sum(others), len(others))),
            "unseen": asdict(wilson(sum(unseen), len(unseen))) if unseen else None,
            "by_category": {group: fmean(values) for group, values in test.items()},
        }  # fmt: skip
    return found


def balanced_f1(own: Sequence[bool], others: Sequence[bool]) -> dict[str, float]:
    """F1 where both sides weigh the same, with a bootstrap interval over the prompts of each side."""

    def f1(hits: np.ndarray, alarms: np.ndarray, axis: int = -1) -> np.ndarray:
        recall, false = hits.mean(axis=axis), alarms.mean(axis=axis)
        return 2 * recall / (recall + false + 1)

    sides = (np.array(own, dtype=float), np.array(others, dtype=float))
    value = float(f1(*sides))
    if any(np.ptp(side) == 0 for side in sides):  # no spread to resample: Wilson's ends of both rates
        recall, false = (wilson(int(side.sum()), len(side)) for side in sides)
        low, high = (2 * r / (r + f + 1) for r, f in ((recall.low, false.high), (recall.high, false.low)))
        return {"value": value, "low": float(low), "high": float(high)}
    rng = np.random.default_rng(0)
    kept = stats.bootstrap(sides, f1, n_resamples=RESAMPLES, confidence_level=LEVEL, method="percentile", rng=rng)
    return {"value": value, "low": float(kept.confidence_interval.low), "high": float(kept.confidence_interval.high)}


def line(x: Sequence[float], y: Sequence[float]) -> dict[str, float] | None:
    """A straight line by least squares, with the interval of its slope; None where all x are the same."""
    if len(set(x)) < 2:
        return None
    found = stats.linregress(x, y)
    reach = stats.t.ppf((1 + LEVEL) / 2, len(x) - 2) * found.stderr
    return {
        "slope": found.slope, "low": found.slope - reach, "high": found.slope + reach, "intercept": found.intercept,
        "r2": found.rvalue**2,
    }  # fmt: skip


def plateau(n: Sequence[float], value: Sequence[float]) -> dict[str, float] | None:
    """value = top - fall * n^-rate, by least squares; None where it can't be fitted."""
    try:
        (top, fall, rate), _ = curve_fit(curve, n, value, p0=(max(value), 0.5, 0.5), bounds=([0, 0, 0.01], [1, 10, 4]))
    except RuntimeError:
        return None
    return {"top": top, "fall": fall, "rate": rate}


def curve(n: Any, top: float, fall: float, rate: float) -> Any:
    """The saturation curve."""
    return top - fall * np.asarray(n, dtype=float) ** -rate


def correlation(x: Sequence[float], y: Sequence[float]) -> dict[str, float] | None:
    """Pearson's r with its interval, and Spearman's; None where one side is constant."""
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    found = stats.pearsonr(x, y)
    interval = found.confidence_interval(LEVEL)
    return {"r": found.statistic, "low": interval.low, "high": interval.high, "rho": stats.spearmanr(x, y).statistic, "n": len(x)}
