"""A study's file and a model to the study itself: directions and thresholds are found once and kept in the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from nnsteer import fit, rules, tune
from nnsteer.condition import Condition, When
from nnsteer.direction import Direction
from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.formats import load_directions, save_directions
from nnsteer.measure.kinds import Measure
from nnsteer.names import READINGS, SPANS, Method
from nnsteer.program import OPS, Program
from nnsteer.progress import bar
from nnsteer.prompts import load_prompts
from nnsteer.requests import load_contrast
from nnsteer.runner import Runner
from nnsteer.site import Place, Site, block_outs
from nnsteer.study.cells import BASELINE, PromptSet, Study, Variant, hashed
from nnsteer.study.spec import Cell, ConditionSpec, Spec

Which = tuple[str, Method]
"""A direction's name in the file, and how it is fitted."""
Fitted = Mapping[Which, Mapping[Place, Direction]]
"""Directions of every layer."""


def build(spec: Spec, fitted: Fitted, conditions: Mapping[str, When], measures: tuple[Measure, ...]) -> Study:
    """Makes every variant of the grid, the unsteered baseline first, and reads the prompts."""
    variants, controls = grid(spec, fitted, conditions)
    sets = tuple(
        PromptSet(name, getattr(load_prompts(entry.source, spec.seed), entry.split)[: entry.first])
        for name, entry in spec.sets.items()
    )
    return Study(variants, sets, measures, controls, spec.max_new_tokens, spec.recommend)


def needed(spec: Spec) -> list[Which]:
    """What the variants and conditions need fitted."""
    pairs = {(cell.direction, cell.method) for cell in spec.cells}
    return sorted(pairs | {(entry.direction, entry.method) for entry in spec.conditions.values()})


def directions_file(spec: Spec, which: Which, weights: str) -> str:
    """Where a folder keeps directions; another file for other texts, another method or another model."""
    return f"direction_{hashed([vars(spec.directions[which[0]]), which[1], spec.seed, weights])}.safetensors"


def fit_directions(spec: Spec, runner: Runner, folder: Folder) -> Fitted:
    """One direction per layer for all that is needed, from the folder where an earlier start has fitted it."""
    fitted = {}
    for which in needed(spec):
        file = folder / directions_file(spec, which, runner.model.weights)
        if not file.exists():
            entry = spec.directions[which[0]]
            contrast = load_contrast(entry.positive, entry.negative, entry.prompts, entry.pairs, spec.seed)
            with bar(f"reading {which[0]}, {which[1]}", len(contrast.positive) + len(contrast.negative)) as watch:
                read = runner.record(contrast, block_outs(range(runner.layout.num_layers)), READINGS[entry.read], watch)
            save_directions(file, fit.METHODS[which[1]](read).values())
        fitted[which] = load_directions(file)
    return fitted


def point_file(spec: Spec, entry: ConditionSpec, weights: str) -> str:
    """Where a folder keeps a threshold that was found."""
    sides = vars(spec.directions[entry.direction])
    return f"condition_{hashed([vars(entry), sides, spec.seed, weights])}.json"


def tuning_prompts(spec: Spec, entry: ConditionSpec) -> list[list[str]]:
    """The tune splits of both sides of a condition's direction."""
    sides = spec.directions[entry.direction]
    return [[p.text for p in load_prompts(source, spec.seed).tune] for source in (sides.positive, sides.negative)]


def find_conditions(spec: Spec, fitted: Fitted, runner: Runner, folder: Folder) -> dict[str, Condition]:
    """Every condition with its threshold as given, or the best one on the tune splits of its direction's two sides, which the
    folder keeps."""
    found = {}
    for name, entry in spec.conditions.items():
        file = point_file(spec, entry, runner.model.weights)
        if entry.threshold is None and not folder.has(file):
            free = condition(entry, fitted, 0.0, "above")
            positive, negative = (runner.scores(side, [free])[0] for side in tuning_prompts(spec, entry))
            folder.write_json(file, asdict(tune.condition_point({Site(entry.layer): tune.sweep(positive, negative)})))
        found[name] = known_condition(entry, fitted, folder, file)
    return found


def known_condition(entry: ConditionSpec, fitted: Fitted, folder: Folder, file: str) -> Condition:
    """A condition whose threshold is given or was found."""
    if entry.threshold is not None:
        return condition(entry, fitted, entry.threshold, entry.fires_when)
    point = folder.read_json(file)
    return condition(entry, fitted, point["threshold"], point["fires_when"])


def condition(entry: ConditionSpec, fitted: Fitted, threshold: float, fires_when: tune.Side) -> Condition:
    """A condition with a threshold."""
    own = fitted[entry.direction, entry.method]
    if Site(entry.layer) not in own:
        raise UserError(f"[conditions] layer {entry.layer}: this model has {len(own)} layers, 0 to {len(own) - 1}")
    return Condition(own[Site(entry.layer)], threshold, fires_when, entry.score)


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
    return directions[Site(layer)].in_unit(cell.unit)


def program(cell: Cell, own: Mapping[Place, Direction], conditions: Mapping[str, When]) -> Program:
    """The cell's steps."""
    steps = OPS[cell.op](own, cell.strength, SPANS[cell.span])
    if cell.when is None:
        return steps
    return rules.program([f"if {cell.when} then it"], conditions, {"it": steps})


def name_of(cell: Cell, spec: Spec) -> str:
    """A cell by what tells it from the others."""
    varied = {axis for axis, value in cell.axes.items() if any(other.axes[axis] != value for other in spec.cells)}
    return " ".join([cell.op, *(f"{axis}={value}" for axis, value in cell.axes.items() if axis in varied and axis != "op")])
