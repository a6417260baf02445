"""Programs to a plan: dicts of tensors, numbers and strings in the order of the forward pass. Only plans enter a trace."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nnsteer.errors import UserError
from nnsteer.layout import Layout
from nnsteer.program import Ablate, Add, Affine, Condition, Op, Program
from nnsteer.site import Site


def lower(programs: Sequence[Program], layout: Layout) -> dict:
    """The plan for a batch in which row i runs `programs[i]`.

    `conditions` lists the distinct conditions; `visits` lists the sites to touch, first to last, each with the conditions
    to read and the edits to make there; `ahead` says that some edit comes before the condition that decides it, so that
    the conditions need a pass of their own first.
    """
    distinct = list(dict.fromkeys(programs))
    conditions = distinct_conditions(programs)
    visits = reading_visits(conditions, layout)
    for program in distinct:
        rows = None if len(distinct) == 1 else torch.tensor([p == program for p in programs])
        for step in program.steps:
            edit = tensors(step.op) | {
                "first": step.span.first,
                "stop": step.span.stop,
                "rows": rows,
                "condition": None if step.when is None else conditions.index(step.when),
            }
            visit(visits, step.site, layout)["edits"].append(edit)
    return plan(conditions, visits) | {"ahead": any(edits_before_reading(program) for program in distinct)}


def reading_plan(conditions: Sequence[Condition], layout: Layout) -> dict:
    """The plan that only reads `conditions`."""
    return plan(conditions, reading_visits(conditions, layout))


def distinct_conditions(programs: Sequence[Program]) -> list[Condition]:
    """Each condition once, in the order in which a batch's plan numbers them."""
    return list(dict.fromkeys(step.when for p in dict.fromkeys(programs) for step in p.steps if step.when is not None))


def plan(conditions: Sequence[Condition], visits: dict[Site, dict]) -> dict:
    """Conditions as plain values, visits in forward order."""
    return {
        "conditions": [lower_condition(condition) for condition in conditions],
        "visits": [visits[site] | {"decodes": decodes(visits[site])} for site in sorted(visits, key=lambda site: site.order)],
    }


def decodes(visit: dict) -> bool:
    """Whether an edit of the visit can touch a generated token; if not, decode steps pass the site by."""
    return any(edit["stop"] is None or edit["stop"] > 0 for edit in visit["edits"])


def reading_visits(conditions: Sequence[Condition], layout: Layout) -> dict[Site, dict]:
    """One visit per site at which a condition is read."""
    visits: dict[Site, dict] = {}
    for number, condition in enumerate(conditions):
        visit(visits, condition.site, layout)["conditions"].append(number)
    return visits


def visit(visits: dict[Site, dict], site: Site, layout: Layout) -> dict:
    """The entry of `site`, made on first use."""
    new = {"path": layout.path(site), "input": site.stream == "block_in", "conditions": [], "edits": []}
    return visits.setdefault(site, new)


def edits_before_reading(program: Program) -> bool:
    """Whether the first edit comes before the last condition, which is read from the unsteered prompt."""
    read = [step.when.site.order for step in program.steps if step.when is not None]
    return bool(read) and min(step.site.order for step in program.steps) < max(read)


def lower_condition(condition: Condition) -> dict:
    """A condition as plain values."""
    return {
        "vector": condition.direction.vector,
        "threshold": condition.threshold,
        "above": condition.fires_when == "above",
        "score": condition.score,
        "first": condition.span.first,
        "stop": condition.span.stop,
    }


def tensors(op: Op) -> dict:
    """The kernel's factors: left and right [rank, hidden], center and shift [hidden]; `right` is None at rank 0."""
    v = op.direction.vector
    if v.norm() == 0 and not isinstance(op, Add):
        raise UserError(f"{op.direction}: a direction of length 0 can't be projected on")
    unit = (v / v.norm())[None]
    nowhere = torch.zeros_like(v)
    match op:
        case Add(strength=strength):
            return {"left": None, "right": None, "center": None, "shift": strength * v}
        case Ablate(strength=strength):
            return {"left": strength * unit, "right": unit, "center": nowhere, "shift": nowhere}
        case Affine(direction=direction, alpha=alpha):
            return {"left": unit, "right": unit, "center": direction.origin, "shift": alpha * v}
