"""What a step does to the states it touches. Strengths are in lengths of the direction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass

from torch import Tensor

from nnsteer.program.direction import Direction
from nnsteer.program.editor import Editor
from nnsteer.program.show import joined


@dataclass(frozen=True)
class Add:
    """h + strength * vector."""

    direction: Direction
    strength: float = 1.0


@dataclass(frozen=True)
class Ablate:
    """h - strength * (projection of h on the direction). Strength 1 removes it whole."""

    direction: Direction
    strength: float = 1.0


@dataclass(frozen=True)
class AblateSubspace:
    """h - strength * (projection of h on the space that the directions span)."""

    directions: tuple[Direction, ...]
    strength: float = 1.0


@dataclass(frozen=True)
class Affine:
    """ACE (*Refusal in LLMs is an Affine Function*): h - proj_r(h) + proj_r(r-) + alpha * r.
    Whatever the input, alpha 0 leaves the projection of the direction's origin (the negative mean),
    alpha 1 that of the positive mean."""

    direction: Direction
    alpha: float = 1.0


@dataclass(frozen=True)
class Clamp:
    """h - proj_r(h) + value * r: sets how much of the direction is in the state, in lengths of it,
    counted from zero."""

    direction: Direction
    value: float


@dataclass(frozen=True)
class Rotate:
    """Turns the part of h in the plane of two directions to `degrees` from the first towards the
    second (which is made orthogonal to the first); its length there, and everything outside the
    plane, stay (angular steering)."""

    first: Direction
    second: Direction
    degrees: float


@dataclass(frozen=True)
class Edit:
    """A fitted affine map: LEACE's or an orthogonal eraser, a quadratic or quadratic-LDA editor."""

    editor: Editor


@dataclass(frozen=True)
class Custom:
    """The user's own: `function(h, *tensors)` with h [row, token, hidden] gives the new states. It
    uses torch alone, touches no other module's names, and treats tokens alike; which tokens change
    is the span's and the condition's business."""

    function: Callable[..., Tensor]
    tensors: tuple[Tensor, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return f"custom {getattr(self.function, '__name__', 'function')}"


@dataclass(frozen=True)
class KeepNorm:
    """The op, then each changed token back to the norm it had."""

    op: Op


@dataclass(frozen=True)
class BoundNorm:
    """The op, then CAST's out-of-input normalisation: if any token of a prompt grew (or is no
    longer finite), each of its changed tokens goes back to the norm it had; a token after the
    prompt, which comes alone, when it grew itself."""

    op: Op


Op = Add | Ablate | AblateSubspace | Affine | Clamp | Rotate | Edit | Custom | KeepNorm | BoundNorm


def fitted(value: object) -> Iterator[Direction | Editor]:
    """Every direction and editor inside an op, a condition, a step or a program."""
    if isinstance(value, Direction | Editor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from fitted(item)
    elif is_dataclass(value):
        for part in fields(value):
            yield from fitted(getattr(value, part.name))


def describe(op: Op) -> str:
    """An op in a few words."""
    return worded(op, lambda op: [" and ".join(map(str, fitted(op))), *amounts(op)])


def brief(op: Op) -> str:
    """An op without where its directions come from: `add mean_difference x 1`."""
    return worded(op, lambda op: [joined(part.method for part in fitted(op)), *amounts(op, "x")])


def worded(op: Op, words_of: Callable[[Op], list[str]]) -> str:
    """An op's kind, and the words for what it does."""
    kind = type(op).__name__.lower()
    match op:
        case KeepNorm(op=inner) | BoundNorm(op=inner):
            return f"{kind} ({worded(inner, words_of)})"
        case Custom():
            return str(op)
    return " ".join([kind, *words_of(op)])


def amounts(op: Op, strength: str = "strength") -> list[str]:
    """An op's numbers, each with its name; `strength` is what a strength is called."""
    parts = [
        (part.name.replace("strength", strength), getattr(op, part.name)) for part in fields(op)
    ]
    return [f"{name} {value:g}" for name, value in parts if isinstance(value, int | float)]
