"""Choosing on the tune split: the condition point by an exact sweep, and how hard to steer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.program.condition import Side, fires
from nnsteer.program.site import Site


@dataclass(frozen=True, repr=False)
class Sweep:
    """Every cut between two distinct scores of one layer, ascending; arrays are [cut]."""

    thresholds: np.ndarray
    """The midpoint of each gap, in fp32 like the scores."""
    gaps: np.ndarray
    f1_above: np.ndarray
    """F1 of "positive where the score is above the threshold"."""
    f1_below: np.ndarray
    false_above: np.ndarray
    """Share of the negatives whose score is above the threshold; of the rest it is `1 - false_above`."""

    def __repr__(self) -> str:
        ends = f"{self.thresholds[0]:.4g} to {self.thresholds[-1]:.4g}"
        best = max(self.f1_above.max(), self.f1_below.max())
        return f"Sweep: {len(self.thresholds)} cuts, {ends}, best F1 {best:.3g}"


@dataclass(frozen=True)
class ConditionPoint:
    """Where to read, and when it fires."""

    site: Site
    threshold: float
    fires_when: Side
    f1: float
    gap: float
    """Distance between the two scores that the threshold lies between."""

    def fires(self, score: float) -> bool:
        """The verdict on a score; the same rule as `Condition.holds`."""
        return fires(score, self.threshold, self.fires_when)


@dataclass(frozen=True)
class Quality:
    """How well firing agrees with being positive."""

    f1: float
    precision: float
    recall: float


def sweep(positive: Tensor, negative: Tensor) -> Sweep:
    """All cuts of the scores of two classes, fp32 [prompt] each, in one pass over their sorted values: exact, where CAST's
    library steps through a grid and rounds. Raises UserError when all scores are equal."""
    scores = np.concatenate([positive.numpy(), negative.numpy()]).astype(np.float32)
    labels = np.concatenate([np.ones(len(positive)), np.zeros(len(negative))])
    order = np.argsort(scores, kind="stable")
    scores, labels = scores[order], labels[order]
    ends = np.flatnonzero(np.diff(scores) > 0)  # the last index of each run of equal scores but the highest
    if not len(ends):
        raise UserError("all condition scores are equal: no threshold separates the prompts; use another layer or other data")
    low, high = scores[ends], scores[ends + 1]
    middle = ((low.astype(np.float64) + high) / 2).astype(np.float32)
    below_positive = np.cumsum(labels)[ends]
    below = ends + 1
    return Sweep(
        thresholds=np.where(middle < high, middle, low),  # neighbouring floats have no midpoint
        gaps=high - low,
        f1_above=f1(len(positive) - below_positive, len(scores) - below, len(positive)),
        f1_below=f1(below_positive, below, len(positive)),
        false_above=1 - (below - below_positive) / len(negative),
    )


def f1(hits: np.ndarray, fired: np.ndarray, positives: int) -> np.ndarray:
    """2 hits / (fired + positives)."""
    return 2 * hits / (fired + positives)


def condition_point(sweeps: Mapping[Site, Sweep], max_false_alarms: float = 1.0) -> ConditionPoint:
    """The cut with the highest F1 over all layers and both sides among those that fire on at most `max_false_alarms` of the
    negatives (1: on any number, as the paper has it); ties go to the widest gap, then to the earliest layer. Raises
    UserError when no cut fires on so few."""
    if not 0 <= max_false_alarms <= 1:
        raise UserError(f"max_false_alarms {max_false_alarms}: must be a share from 0 to 1")
    best: ConditionPoint | None = None
    for site in sorted(sweeps, key=lambda site: site.order):
        cuts = sweeps[site]
        sides: tuple[tuple[Side, np.ndarray, np.ndarray], ...] = (
            ("above", cuts.f1_above, cuts.false_above),
            ("below", cuts.f1_below, 1 - cuts.false_above),
        )
        for side, f1s, false in sides:
            f1s = np.where(false <= max_false_alarms + 1e-9, f1s, -1)
            if f1s.max() < 0:
                continue
            i = max(np.flatnonzero(f1s == f1s.max()), key=lambda i: cuts.gaps[i])
            point = ConditionPoint(site, float(cuts.thresholds[i]), side, float(f1s[i]), float(cuts.gaps[i]))
            if best is None or (point.f1, point.gap) > (best.f1, best.gap):
                best = point
    if best is None:
        raise UserError(
            f"no threshold fires on at most {max_false_alarms:.0%} of the negative tune prompts; allow more false alarms"
        )
    return best


def quality(fired_on_positive: Sequence[bool], fired_on_negative: Sequence[bool]) -> Quality:
    """F1, precision and recall of a condition's verdicts."""
    hits, false_alarms = sum(fired_on_positive), sum(fired_on_negative)
    precision = hits / (hits + false_alarms) if hits + false_alarms else 0.0
    return Quality(2 * hits / (hits + false_alarms + len(fired_on_positive)), precision, hits / len(fired_on_positive))


@dataclass(frozen=True)
class Dose:
    """A way to steer: the tokens that the direction is read on and those that it is added to (by name), the layers, and the
    strength in lengths of the direction."""

    window: str
    span: str
    layers: tuple[int, ...]
    strength: float

    def __str__(self) -> str:
        layers = ", ".join(map(str, self.layers))
        return f"read on {self.window} opener tokens, added to {self.span} tokens at layers {layers}, strength {self.strength:g}"


@dataclass(frozen=True)
class Trial:
    """What a dose did on the tune split: shares of all its prompts, harmful and harmless weighed alike; and the larger of the
    changes in either side's refusal that random directions of its length made, 0 where that was not measured."""

    dose: Dose
    refused: float
    broken: float
    at_random: float = 0.0


def choose(trials: Sequence[Trial], max_broken: float) -> Trial:
    """The first by `rank`. Raises UserError when every dose breaks more than `max_broken` of the answers."""
    if all(trial.broken > max_broken for trial in trials):
        least = min(trial.broken for trial in trials)
        raise UserError(
            f"every strength tried breaks more than {max_broken:.0%} of the answers (the least: {least:.0%}); "
            "try other --layers, a smaller --strength, or a larger --max-broken"
        )
    return max(trials, key=lambda trial: rank(trial, max_broken))


def rank(trial: Trial, max_broken: float) -> tuple:
    """Sorts doses, the best last: those that break at most `max_broken` of the answers, then the share of refusals less what is
    due to length alone; ties go to fewer broken answers, then to the smaller strength."""
    return trial.broken <= max_broken, trial.refused - trial.at_random, -trial.broken, -trial.dose.strength


def layer_bands(num_layers: int) -> list[tuple[int, ...]]:
    """Candidate sets of steering layers: the first half, the middle half, the second half and the first three quarters."""
    quarter = num_layers / 4
    bounds = [(0, 2), (1, 3), (2, 4), (0, 3)]
    bands = [tuple(range(round(a * quarter), round(b * quarter))) for a, b in bounds]
    return list(dict.fromkeys(band for band in bands if band))
