"""A study's file and a model to the study itself: directions are fitted once and kept in the run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nnsteer import fit, rules, tune
from nnsteer.condition import Condition, When
from nnsteer.contrast import ContrastSet, of_prompts, of_responses
from nnsteer.direction import Direction
from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.formats import load_directions, save_directions
from nnsteer.measure.kinds import Measure
from nnsteer.program import Program, ablate, add, affine, clamp
from nnsteer.progress import bar
from nnsteer.prompts import load_openers, load_prompts
from nnsteer.runner import Runner
from nnsteer.site import Place, Site, block_outs
from nnsteer.study.cells import BASELINE, PromptSet, Study, Variant, hashed
from nnsteer.study.spec import READINGS, SPANS, Cell, ConditionSpec, DirectionSpec, Spec

Fitted = Mapping[tuple[str, str], Mapping[Place, Direction]]
"""Directions of every layer by (name, method)."""


def build(spec: Spec, runner: Runner, folder: Folder, measures: tuple[Measure, ...]) -> Study:
    """Fits what the variants and conditions need, and makes every variant of the grid, the unsteered baseline first."""
    needed = {(cell.direction, cell.method) for cell in spec.cells}
    needed |= {(condition.direction, condition.method) for condition in spec.conditions.values()}
    fitted = {(name, method): directions(spec, spec.directions[name], method, runner, folder) for name, method in sorted(needed)}
    conditions = {name: condition(spec, entry, fitted, runner) for name, entry in spec.conditions.items()}
    variants, controls = grid(spec, fitted, conditions)
    sets = tuple(
        PromptSet(name, getattr(load_prompts(entry.source, spec.seed), entry.split)[: entry.first])
        for name, entry in spec.sets.items()
    )
    return Study(variants, sets, measures, controls, spec.max_new_tokens)


def directions(spec: Spec, entry: DirectionSpec, method: str, runner: Runner, folder: Folder) -> Mapping[Place, Direction]:
    """One direction per layer, from the folder where an earlier start has fitted it."""
    file = folder / f"direction_{hashed([vars(entry), method, spec.seed, runner.model.weights])}.safetensors"
    if not file.exists():
        contrast = contrast_of(entry, spec.seed)
        with bar(f"reading {method}", len(contrast.positive) + len(contrast.negative)) as watch:
            read = runner.record(contrast, block_outs(range(runner.layout.num_layers)), READINGS[entry.read], watch)
        save_directions(file, fit.METHODS[method](read).values())
    return load_directions(file)


def contrast_of(entry: DirectionSpec, seed: int) -> ContrastSet:
    """The texts of a direction, from the fit splits."""
    if entry.prompts is not None:
        prompts = [p.text for p in load_prompts(entry.prompts, seed).fit[: entry.pairs]]
        return of_responses(prompts, load_openers(entry.positive), load_openers(entry.negative), seed)
    sides = ([p.text for p in load_prompts(source, seed).fit[: entry.pairs]] for source in (entry.positive, entry.negative))
    return of_prompts(*sides)


def condition(spec: Spec, entry: ConditionSpec, fitted: Fitted, runner: Runner) -> Condition:
    """A condition with its threshold as given, or the best one on the tune splits of its direction's two sides."""
    direction = fitted[entry.direction, entry.method][Site(entry.layer)]
    free = Condition(direction, 0.0, entry.fires_when, entry.score)
    if entry.threshold is not None:
        return Condition(direction, entry.threshold, entry.fires_when, entry.score)
    sides = spec.directions[entry.direction]
    prompts = [[p.text for p in load_prompts(source, spec.seed).tune] for source in (sides.positive, sides.negative)]
    point = tune.condition_point({Site(entry.layer): tune.sweep(*(runner.scores(side, [free])[0] for side in prompts))})
    return Condition(direction, point.threshold, point.fires_when, entry.score)


def grid(spec: Spec, fitted: Fitted, conditions: Mapping[str, When]) -> tuple[tuple[Variant, ...], dict[str, str]]:
    """The baseline and every cell, each followed by its random control where it has none yet; and which control is whose."""
    variants = {BASELINE: Variant(BASELINE, Program(), {})}
    controls = {}
    for cell in spec.cells:
        own: dict[Place, Direction] = {Site(layer): at(fitted[cell.direction, cell.method], layer, cell) for layer in cell.layers}
        name = name_of(cell, spec)
        variants[name] = Variant(name, program(cell, own, conditions), cell.axes)
        if spec.controls:
            control = f"random, {name}"
            noise = fit.random_like(own, spec.seed)
            variants[control] = Variant(control, program(cell, noise, conditions), {})
            controls[name] = control
    return tuple(variants.values()), controls


def at(directions: Mapping[Place, Direction], layer: int, cell: Cell) -> Direction:
    """The direction of a layer in the cell's unit."""
    if Site(layer) not in directions:
        raise UserError(f"[[variants]] layer {layer}: this model has {len(directions)} layers, 0 to {len(directions) - 1}")
    direction = directions[Site(layer)]
    return {"absolute": direction.unit, "norm": direction.relative}.get(cell.unit, lambda: direction)()


def program(cell: Cell, own: Mapping[Place, Direction], conditions: Mapping[str, When]) -> Program:
    """The cell's steps."""
    verbs: dict[str, Callable[..., Program]] = {"add": add, "ablate": ablate, "affine": affine, "clamp": clamp}
    steps = verbs[cell.op](own, cell.strength, SPANS[cell.span])
    if cell.when is None:
        return steps
    return rules.program([f"if {cell.when} then it"], conditions, {"it": steps})


def name_of(cell: Cell, spec: Spec) -> str:
    """A cell by what tells it from the others."""
    varied = {axis for axis, value in cell.axes.items() if any(other.axes[axis] != value for other in spec.cells)}
    return " ".join([cell.op, *(f"{axis}={value}" for axis, value in cell.axes.items() if axis in varied and axis != "op")])
