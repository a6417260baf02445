"""A study's file, and what was fitted for it, to the study itself."""

from __future__ import annotations

from collections.abc import Mapping

from nnsteer import fit
from nnsteer.errors import UserError
from nnsteer.measure.kinds import Measure
from nnsteer.program import rules
from nnsteer.program.condition import When
from nnsteer.program.direction import Direction, Directions
from nnsteer.program.names import SPANS
from nnsteer.program.program import Program, op_named
from nnsteer.program.site import Place, Site
from nnsteer.study.cells import BASELINE, Variant
from nnsteer.study.fitting import Fitted, plane_file, scores_file
from nnsteer.study.inputs import Inputs
from nnsteer.study.spec import Cell, Spec
from nnsteer.study.study import Study


def build(
    spec: Spec,
    inputs: Inputs,
    fitted: Fitted,
    conditions: Mapping[str, When],
    measures: tuple[Measure, ...],
    weights: str,
) -> Study:
    """Makes every variant of the grid, the unsteered baseline first."""
    variants, controls = grid(spec, fitted, conditions)
    planes = {name: plane_file(spec, inputs, name, weights) for name in spec.fitted}
    scores = {name: scores_file(entry, inputs, fitted) for name, entry in spec.conditions.items()}
    return Study(
        variants,
        inputs.sets,
        measures,
        controls,
        spec.max_new_tokens,
        spec.recommend,
        planes,
        scores,
    )


def grid(
    spec: Spec, fitted: Fitted, conditions: Mapping[str, When]
) -> tuple[tuple[Variant, ...], dict[str, str]]:
    """The baseline and every cell, each followed by its random control; and which control is
    whose."""
    variants = {BASELINE: Variant(BASELINE, Program(), {})}
    controls = {}
    for cell in spec.cells:
        own: dict[Place, Direction] = {
            Site(layer): at(fitted[cell.direction, cell.method], layer, cell)
            for layer in cell.layers
        }
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
        raise UserError(
            f"[[variants]] layer {layer}: this model has {len(directions)} layers, "
            f"0 to {len(directions) - 1}"
        )
    return directions[Site(layer)].in_unit(cell.unit)


def program(cell: Cell, own: Mapping[Place, Direction], conditions: Mapping[str, When]) -> Program:
    """The cell's steps."""
    steps = op_named(cell.op)(Directions(own), cell.strength, SPANS[cell.span])
    if cell.when is None:
        return steps
    return rules.program([f"if {cell.when} then it"], conditions, {"it": steps})


def name_of(cell: Cell, spec: Spec) -> str:
    """A cell by what tells it from the others."""
    varied = {
        axis
        for axis, value in cell.axes.items()
        if any(other.axes[axis] != value for other in spec.cells)
    }
    return " ".join(
        [
            cell.op,
            *(
                f"{axis}={value}"
                for axis, value in cell.axes.items()
                if axis in varied and axis != "op"
            ),
        ]
    )
