"""The methods that the paper compares, as programs of alpha.

They are subsets of one sum, v - proj_r(v) + proj_r(r-) + alpha r (*Refusal in LLMs is an Affine Function*, equation 5): alpha 0
is meant to leave a state as on harmless prompts, alpha 1 as on harmful ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from nnsteer import fit
from nnsteer.measure.sampled import Cell
from nnsteer.program import program, quirks
from nnsteer.program.program import Program
from nnsteer.program.span import ALL, GENERATED, PROMPT, Span
from nnsteer.recipes.affine.places import Fitted, Where

Method = Literal["ace", "add", "ablate", "ablate_add", "leace", "orth", "quadratic", "quadratic_lda", "random"]
Steered = Literal["both", "before", "after", "published-before", "published-after"]
ProgramsOf = Callable[[float], tuple[Program, ...]]
"""Alpha to programs, which the prompts take in turn: one for all methods but the control."""

DRAWS = 16  # random directions of the control: one alone can move refusal far either way
NEED_COVARIANCE = {"leace", "quadratic", "quadratic_lda"}


def ace(found: Fitted) -> ProgramsOf:
    """v - proj_r(v) + proj_r(r-) + alpha r."""
    return lambda alpha: (program.affine(found.directions, alpha),)


def add(found: Fitted) -> ProgramsOf:
    """CAA: v + alpha r."""
    return lambda alpha: (program.add(found.directions, alpha),)


def ablate(found: Fitted) -> ProgramsOf:
    """Directional ablation: v - proj_r(v), whatever alpha is."""
    return lambda _: (program.ablate(found.directions),)


def ablate_add(found: Fitted) -> ProgramsOf:
    """v - proj_r(v) + alpha r: ACE with an origin of zero."""
    return lambda alpha: (program.ablate(found.directions) + program.add(found.directions, alpha),)


def leace(found: Fitted) -> ProgramsOf:
    """LEACE (steering-llama3 `--leace leace`). It leaves both classes at the mean of all states, from which the published
    multiplier counts; alpha is that plus the positive class's share."""
    return counted_from_all(found, program.edit(fit.leace(found.moments)))


def orth(found: Fitted) -> ProgramsOf:
    """Orthogonal erasure (`--leace orth`), counted likewise: ACE, by other arithmetic."""
    return counted_from_all(found, program.edit(fit.orth(found.moments)))


def counted_from_all(found: Fitted, erased: Program) -> ProgramsOf:
    """The mean of all states, and from there along r."""
    return lambda alpha: (erased + program.add(found.directions, alpha - found.share),)


def quadratic(found: Fitted) -> ProgramsOf:
    """Optimal transport of all states onto one class (`quad`): the positive above alpha = share, the negative below; nothing
    there. As published, how far alpha lies from there does not matter."""
    editors = (fit.quadratic(found.moments, "negative"), fit.quadratic(found.moments, "positive"))
    return towards(found, *map(program.edit, editors))


def quadratic_lda(found: Fitted) -> ProgramsOf:
    """The same for those tokens alone that a linear discriminant puts into the other class (`quadlda`)."""
    editors = (fit.quadratic_lda(found.moments, "negative"), fit.quadratic_lda(found.moments, "positive"))
    return towards(found, *map(program.edit, editors))


def towards(found: Fitted, negative: Program, positive: Program) -> ProgramsOf:
    """One of two programs by the side of the classes' common mean on which alpha lies."""
    return lambda alpha: (Program() if alpha == found.share else positive if alpha > found.share else negative,)


def random(found: Fitted) -> ProgramsOf:
    """The control: ACE along random directions of r's length."""
    draws = [fit.random_like(found.directions, seed) for seed in range(DRAWS)]
    return lambda alpha: tuple(program.affine(draw, alpha) for draw in draws)


METHODS: dict[Method, Callable[[Fitted], ProgramsOf]] = {
    "ace": ace, "add": add, "ablate": ablate, "ablate_add": ablate_add, "leace": leace, "orth": orth, "quadratic": quadratic,
    "quadratic_lda": quadratic_lda, "random": random,
}  # fmt: skip


def over(steps: Program, span: Span) -> Program:
    """The same steps on other tokens."""
    return Program(tuple(replace(step, span=span) for step in steps.steps))


STEERED: dict[Steered, Callable[[Program], Program]] = {
    "both": partial(over, span=ALL),
    "before": partial(over, span=PROMPT),
    "after": partial(over, span=GENERATED),
    "published-before": quirks.llama3_before,
    "published-after": quirks.llama3_after,
}


def cells(methods: Sequence[Method], where: Where, found: Fitted, alphas: Sequence[float], steered: Steered) -> list[Cell]:
    """Every method at a place, at every alpha. A place other than the one layer is in the methods' names."""
    made = []
    for method in methods:
        name, of = method if where == "layer" else f"{method} {where}", METHODS[method](found)
        made += [Cell(name, alpha, tuple(STEERED[steered](one) for one in of(alpha))) for alpha in alphas]
    return made


def named(made: Sequence[Cell]) -> dict[str, Program]:
    """The cells' programs by name, to be saved: `ace 0.25`, or `random 0.25 #3` where a cell has several."""
    return {
        f"{cell.method} {cell.alpha}" + (f" #{draw}" if len(cell.programs) > 1 else ""): one
        for cell in made
        for draw, one in enumerate(cell.programs)
    }


def cells_of(saved: Mapping[str, Program]) -> list[Cell]:
    """The inverse of `named`."""
    grouped: dict[str, list[Program]] = {}
    for name, one in saved.items():
        grouped.setdefault(name.partition(" #")[0], []).append(one)
    parts = ((*name.rpartition(" ")[::2], tuple(own)) for name, own in grouped.items())
    return [Cell(method, float(alpha), own) for method, alpha, own in parts]
