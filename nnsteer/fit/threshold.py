"""Where a condition is read and when it fires, chosen on the tune split by an exact sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.program.condition import Condition, Side, fires
from nnsteer.program.site import Place


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
    """Share of the negatives whose score is above the threshold; below it are the others."""

    def __repr__(self) -> str:
        ends = f"{self.thresholds[0]:.4g} to {self.thresholds[-1]:.4g}"
        best = max(self.f1_above.max(), self.f1_below.max())
        return f"Sweep: {len(self.thresholds)} cuts, {ends}, best F1 {best:.3g}"


@dataclass(frozen=True)
class ConditionPoint:
    """Where to read, and when it fires."""

    site: Place
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
    """All cuts of the scores of two classes, fp32 [prompt] each, in one pass over their sorted
    values: exact, where CAST's library steps through a grid and rounds. Raises UserError when all
    scores are equal."""
    scores = np.concatenate([positive.numpy(), negative.numpy()]).astype(np.float32)
    labels = np.concatenate([np.ones(len(positive)), np.zeros(len(negative))])
    order = np.argsort(scores, kind="stable")
    scores, labels = scores[order], labels[order]
    # the last index of each run of equal scores but the highest
    ends = np.flatnonzero(np.diff(scores) > 0)
    if not len(ends):
        raise UserError(
            "all condition scores are equal: no threshold separates the prompts; "
            "use another layer or other data"
        )
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


def condition_point(sweeps: Mapping[Place, Sweep], max_false_alarms: float = 1.0) -> ConditionPoint:
    """The cut with the highest F1 over all layers and both sides among those that fire on at most
    `max_false_alarms` of the negatives (1: on any number, as the paper has it); ties go to the
    widest gap, then to the earliest layer. Raises UserError when no cut fires on so few."""
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
            threshold, gap = float(cuts.thresholds[i]), float(cuts.gaps[i])
            point = ConditionPoint(site, threshold, side, float(f1s[i]), gap)
            if best is None or (point.f1, point.gap) > (best.f1, best.gap):
                best = point
    if best is None:
        raise UserError(
            f"no threshold fires on at most {max_false_alarms:.0%} of the negative tune prompts; "
            "allow more false alarms"
        )
    return best


def quality(fired_on_positive: Sequence[bool], fired_on_negative: Sequence[bool]) -> Quality:
    """F1, precision and recall of a condition's verdicts."""
    hits, false_alarms = sum(fired_on_positive), sum(fired_on_negative)
    precision = hits / (hits + false_alarms) if hits + false_alarms else 0.0
    positives = len(fired_on_positive)
    return Quality(2 * hits / (hits + false_alarms + positives), precision, hits / positives)


def best_point(
    candidates: Sequence[Condition],
    positive: Tensor,
    negative: Tensor,
    max_false_alarms: float = 1.0,
) -> tuple[int, ConditionPoint]:
    """Which of the candidates, one a site, tells its scores apart best, and at which point; scores
    are fp32 [candidate, prompt]. Raises UserError as `condition_point` does."""
    sides = zip(candidates, positive, negative, strict=True)
    sweeps = {candidate.site: sweep(scores, others) for candidate, scores, others in sides}
    point = condition_point(sweeps, max_false_alarms)
    return list(sweeps).index(point.site), point


def known_point(
    site: Place, threshold: float, fires_when: Side, positive: Tensor, negative: Tensor
) -> ConditionPoint:
    """A point that is known, with its F1 on these scores, fp32 [prompt]."""
    point = ConditionPoint(site, threshold, fires_when, f1=0.0, gap=0.0)
    fired = ([point.fires(score) for score in side.tolist()] for side in (positive, negative))
    return replace(point, f1=quality(*fired).f1)


def placed(candidate: Condition, point: ConditionPoint) -> Condition:
    """The candidate with the point's threshold and side."""
    return replace(candidate, threshold=point.threshold, fires_when=point.fires_when)
