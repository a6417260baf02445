"""What to do to a model, as data: a program is a tuple of steps, and a step is an op at a site, over a span of tokens,
when a condition holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from nnsteer.direction import Direction, Directions
from nnsteer.site import Site
from nnsteer.span import ALL, PROMPT, Span

Side = Literal["above", "below"]
Score = Literal["cosine", "cast"]


@dataclass(frozen=True)
class Add:
    """h + strength * vector. The strength is in lengths of the direction."""

    direction: Direction
    strength: float = 1.0


@dataclass(frozen=True)
class Ablate:
    """h - strength * (projection of h on the direction). Strength 1 removes it whole."""

    direction: Direction
    strength: float = 1.0


@dataclass(frozen=True)
class Affine:
    """ACE (*Refusal in LLMs is an Affine Function*): h - proj_r(h) + proj_r(r-) + alpha * r. Whatever the input, alpha 0
    leaves the projection of the negative mean, alpha 1 that of the positive mean."""

    direction: Direction
    alpha: float = 1.0


Op = Add | Ablate | Affine


@dataclass(frozen=True)
class Condition:
    """Holds for a row when the score of its prompt is above the threshold (or at or below it). It is read once per call, in
    fp32, from the unsteered prompt, and stands for the whole generation. `~condition` is its exact complement."""

    direction: Direction
    threshold: float
    fires_when: Side = "above"
    score: Score = "cosine"
    span: Span = PROMPT

    @property
    def site(self) -> Site:
        """Where it is read: where its direction was."""
        return self.direction.site

    def holds(self, score: float) -> bool:
        """The verdict on a score; `below` includes the threshold, so that it is the exact complement of `above`."""
        return score > self.threshold if self.fires_when == "above" else score <= self.threshold

    def __invert__(self) -> Condition:
        return replace(self, fires_when="below" if self.fires_when == "above" else "above")

    def __str__(self) -> str:
        sign = ">" if self.fires_when == "above" else "<="
        return f"{self.score} at {self.site} {sign} {self.threshold:.6g}"


@dataclass(frozen=True)
class Step:
    """One op at one site."""

    op: Op
    site: Site
    span: Span = ALL
    when: Condition | None = None


@dataclass(frozen=True)
class Program:
    """Steps, applied in the order in which the forward pass reaches their sites; at one site, in the order given. `+`
    joins programs. The empty program leaves the model alone."""

    steps: tuple[Step, ...] = ()

    def __add__(self, other: Program) -> Program:
        return Program(self.steps + other.steps)

    def when(self, condition: Condition) -> Program:
        """The same steps, taken only for rows where the condition holds."""
        if any(step.when is not None for step in self.steps):
            raise ValueError("a step of this program has a condition already")
        return Program(tuple(replace(step, when=condition) for step in self.steps))

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Every direction it uses, those of conditions included."""
        used = [step.op.direction for step in self.steps]
        return tuple(used + [step.when.direction for step in self.steps if step.when])

    def __str__(self) -> str:
        lines = [f"{type(s.op).__name__.lower()} {s.op.direction} | {s.span} | {s.when or 'always'}" for s in self.steps]
        return "\n".join(lines) or "nothing"


def add(directions: Directions, strength: float = 1.0, span: Span = ALL) -> Program:
    """Adds each direction at the site where it was read."""
    return _at_own_sites((Add(direction, strength) for direction in directions.values()), span)


def ablate(directions: Directions, strength: float = 1.0, span: Span = ALL) -> Program:
    """Removes each direction at the site where it was read."""
    return _at_own_sites((Ablate(direction, strength) for direction in directions.values()), span)


def affine(directions: Directions, alpha: float = 1.0, span: Span = ALL) -> Program:
    """Sets each direction's coefficient at the site where it was read (ACE)."""
    return _at_own_sites((Affine(direction, alpha) for direction in directions.values()), span)


def _at_own_sites(ops: Iterable[Op], span: Span) -> Program:
    return Program(tuple(Step(op, op.direction.site, span) for op in ops))
