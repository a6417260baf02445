"""When a step is taken: a threshold on one score, and the combinations of such conditions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import get_args

import numpy as np

from nnsteer.errors import UserError
from nnsteer.program.direction import Direction, usable
from nnsteer.program.names import Score, Side, SpanName, as_where
from nnsteer.program.site import Place
from nnsteer.program.span import PROMPT, Where
from nnsteer.program.values import number


def both(first: When, second: When) -> AllOf:
    """`first & second`."""
    return AllOf((first, second))


def either(first: When, second: When) -> AnyOf:
    """`first | second`."""
    return AnyOf((first, second))


def fires(score: float, threshold: float, fires_when: Side) -> bool:
    """The verdict on an fp32 score; `below` includes the threshold, so that it is the exact
    complement of `above`."""
    limit = float(np.float32(threshold))  # as `kernels.edits.verdict` compares them
    return score > limit if fires_when == "above" else score <= limit


@dataclass(frozen=True, init=False, repr=False)
class Condition:
    """Holds for a row when the score of its prompt is above the threshold (or at or below it). It
    is read once per call, in fp32, from the unsteered prompt, and stands for the whole generation.
    `~condition` is its exact complement; conditions combine with `&` and `|`.

    Scores of the pooled state h against the direction v: `cosine`; `cast`, cos(h, tanh(proj_v h)),
    which does not know v's sign (CAST section 3.1); `projection`, h . v / |v|; `coordinate`, (h -
    origin) . v / |v|^2, a probe's score: 0 at the negative mean, 1 at the positive.

    `span` is the tokens or their name, such as "prompt". Raises UserError for a direction whose
    vector is zero or not finite, a threshold that is no number, and unknown names."""

    direction: Direction
    threshold: float
    fires_when: Side = "above"
    score: Score = "cosine"
    span: Where = PROMPT

    def __init__(
        self,
        direction: Direction,
        threshold: float,
        fires_when: Side = "above",
        score: Score = "cosine",
        span: Where | SpanName = PROMPT,
    ) -> None:
        if not isinstance(direction, Direction):
            kind = type(direction).__name__
            raise UserError(f"condition: got {kind}; expected one Direction, such as directions[3]")
        for name, word, words in (("fires_when", fires_when, Side), ("score", score, Score)):
            if word not in get_args(words):
                raise UserError(f"{name} {word!r}: expected one of {', '.join(get_args(words))}")
        given = usable(direction), number("threshold", threshold), fires_when, score, as_where(span)
        for field, value in zip(fields(self), given, strict=True):
            object.__setattr__(self, field.name, value)

    @property
    def site(self) -> Place:
        """Where it is read: where its direction was."""
        return self.direction.site

    def holds(self, score: float) -> bool:
        """The verdict on a score."""
        return fires(score, self.threshold, self.fires_when)

    def __invert__(self) -> Condition:
        return replace(self, fires_when="below" if self.fires_when == "above" else "above")

    __and__, __or__ = both, either

    def __str__(self) -> str:
        sign = ">" if self.fires_when == "above" else "<="
        return f"{self.score} at {self.site} {sign} {self.threshold:.6g}"

    def __repr__(self) -> str:
        return f"Condition: {self}, of {self.direction.method}, read over {self.span}"


@dataclass(frozen=True)
class AllOf:
    """Holds when every part holds."""

    parts: tuple[When, ...]

    def __invert__(self) -> AnyOf:
        return AnyOf(tuple(~part for part in self.parts))

    __and__, __or__ = both, either

    def __str__(self) -> str:
        return " and ".join(map(str, self.parts)).join("()")


@dataclass(frozen=True)
class AnyOf:
    """Holds when some part holds: CAST's several condition layers, for one."""

    parts: tuple[When, ...]

    def __invert__(self) -> AllOf:
        return AllOf(tuple(~part for part in self.parts))

    __and__, __or__ = both, either

    def __str__(self) -> str:
        return " or ".join(map(str, self.parts)).join("()")


When = Condition | AllOf | AnyOf


def leaves(when: When | None) -> Iterator[Condition]:
    """The conditions in a combination, left to right."""
    if isinstance(when, Condition):
        yield when
    elif when is not None:
        for part in when.parts:
            yield from leaves(part)


def holds(when: When, verdicts: dict[Condition, bool]) -> bool:
    """The verdict of a combination, from those of its conditions."""
    if isinstance(when, Condition):
        return verdicts[when]
    parts = [holds(part, verdicts) for part in when.parts]
    return all(parts) if isinstance(when, AllOf) else any(parts)


def probe(direction: Direction, span: Where | SpanName = PROMPT) -> Condition:
    """The condition that a probe (`fit.logistic`, `fit.lda`) decides at its own boundary."""
    if direction.boundary is None:
        mistake = "no probe, so it has no boundary of its own"
        raise UserError(f"{direction}: {mistake}; give a Condition with a threshold")
    return Condition(direction, direction.boundary, "above", "coordinate", span)
