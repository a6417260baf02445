"""The methods that the paper compares, as programs of alpha.

They are subsets of one sum, v - proj_r(v) + proj_r(r-) + alpha r (*Refusal in LLMs is an Affine
Function*, equation 5): alpha 0 is meant to leave a state as on harmless prompts, alpha 1 as on
harmful ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

from nnsteer import fit
from nnsteer.folder import Folder
from nnsteer.program import quirks
from nnsteer.program.files import load_programs, save_programs
from nnsteer.program.program import Program, ablate, add, affine, edit
from nnsteer.program.span import ALL, GENERATED, PROMPT, Span
from nnsteer.recipes.affine.places import Fitted, Where
from nnsteer.study.cells import Variant

Method = Literal[
    "ace", "add", "ablate", "ablate_add", "leace", "orth", "quadratic", "quadratic_lda", "random"
]
METHODS: tuple[Method, ...] = get_args(Method)
Steered = Literal["both", "before", "after", "published-before", "published-after"]
NEED_COVARIANCE = {"leace", "quadratic", "quadratic_lda"}
PROGRAMS, VARIANTS = "programs.safetensors", "programs.json"
DRAWS = 16  # random directions of the control: one alone can move refusal far either way
UNSTEERED = Variant("unsteered 0.0", (Program(),), {"method": "unsteered", "alpha": 0.0})


def programs_of(method: Method, fitted: Fitted) -> Callable[[float], Program | tuple[Program, ...]]:
    """A method as a program of alpha, or as several that the prompts take in turn."""
    r, moments, share = fitted.directions, fitted.moments, fitted.share
    match method:
        case "ace":  # v - proj_r(v) + proj_r(r-) + alpha r
            return partial(affine, r)
        case "add":  # CAA: v + alpha r
            return partial(add, r)
        case "ablate":  # directional ablation, v - proj_r(v), whatever alpha is
            return lambda _: ablate(r)
        case "ablate_add":  # v - proj_r(v) + alpha r: ACE with an origin of zero
            return lambda alpha: ablate(r) + add(r, alpha)
        # steering-llama3 `--leace leace` and `--leace orth`, the second of which is ACE by other
        # arithmetic. They leave both classes at the mean of all states, from which the published
        # multiplier counts; alpha is that plus the positive class's share.
        case "leace" | "orth":
            erased = edit((fit.leace if method == "leace" else fit.orth)(moments))
            return lambda alpha: erased + add(r, alpha - share)
        # Optimal transport of all states onto one class (`quad`), or of those tokens alone that a
        # linear discriminant puts into the other class (`quadlda`): onto the positive class above
        # alpha = share, onto the negative below; nothing there. As published, how far alpha lies
        # from there does not matter.
        case "quadratic" | "quadratic_lda":
            transport = fit.quadratic if method == "quadratic" else fit.quadratic_lda
            down, up = (edit(transport(moments, side)) for side in ("negative", "positive"))
            return lambda alpha: up if alpha > share else down if alpha < share else Program()
        case "random":  # the control: ACE along random directions of r's length
            draws = [fit.random_like(r, seed) for seed in range(DRAWS)]
            return lambda alpha: tuple(affine(draw, alpha) for draw in draws)


def over(program: Program, span: Span) -> Program:
    """The same steps on other tokens."""
    return Program(tuple(replace(step, span=span) for step in program.steps))


STEERED: dict[Steered, Callable[[Program], Program]] = {
    "both": partial(over, span=ALL),
    "before": partial(over, span=PROMPT),
    "after": partial(over, span=GENERATED),
    "published-before": quirks.llama3_before,
    "published-after": quirks.llama3_after,
}


def at(
    where: Where, fitted: Fitted, methods: Sequence[Method], alphas: Sequence[float], span: Steered
) -> list[Variant]:
    """Every method at a place, at every alpha. A place other than the one layer is in the methods'
    names."""
    variants = []
    for method in methods:
        name = method if where == "layer" else f"{method} {where}"
        programs_at = programs_of(method, fitted)
        for alpha in alphas:
            axes: dict[str, str | float] = {"method": name, "alpha": alpha}
            variant = Variant(f"{name} {alpha}", programs_at(alpha), axes)
            programs = tuple(map(STEERED[span], variant.in_turn))
            variants.append(replace(variant, programs=programs))
    return variants


def save(folder: Folder, variants: Sequence[Variant]) -> None:
    """Keeps the variants' programs, `ace 0.25`, or `random 0.25 #3` where a variant has several;
    and beside them, whose they are."""
    programs, kept = dict[str, Program](), {}
    for variant in variants:
        several = len(variant.in_turn) > 1
        names = [variant.name + (f" #{i}" if several else "") for i in range(len(variant.in_turn))]
        programs |= dict(zip(names, variant.in_turn, strict=True))
        kept[variant.name] = {"axes": dict(variant.axes), "programs": names}
    folder.write_json(VARIANTS, kept)
    save_programs(folder / PROGRAMS, programs)


def load(folder: Folder) -> list[Variant]:
    """The inverse of `save`."""
    programs = load_programs(folder / PROGRAMS)
    return [
        Variant(name, tuple(programs[program] for program in facts["programs"]), facts["axes"])
        for name, facts in folder.read_json(VARIANTS).items()
    ]
