"""Programs to a plan: dicts of tensors, numbers and strings in the order of the forward pass. Only
plans enter a trace."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from operator import itemgetter

import torch
from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.model.layout import Layout
from nnsteer.program import op as ops
from nnsteer.program.condition import AllOf, Condition, When
from nnsteer.program.direction import Direction
from nnsteer.program.program import Program, Step
from nnsteer.program.site import Place
from nnsteer.program.span import Positions, Where

UNBOUND = {"norm": None, "gate": None}
"""An edit that keeps no norm and touches every token that is meant."""


def lower(programs: Sequence[Program], layout: Layout) -> dict:
    """The plan for a batch in which row i runs `programs[i]`.

    `conditions` lists the distinct conditions; `visits` lists the modules to touch, first to last,
    each with the conditions to read and the edits to make there; `ahead` says that some edit comes
    before the condition that decides it, so that the conditions need a pass of their own first,
    whose results `scores` is for.
    """
    rows_of: dict[Program, list[int]] = {}
    for row, program in enumerate(programs):
        rows_of.setdefault(program, []).append(row)
    conditions = distinct_conditions(programs)
    visits = reading_visits(conditions, layout)
    for program, numbers in rows_of.items():
        rows = None if len(rows_of) == 1 else torch.tensor(numbers)
        for step in sorted(program.steps, key=lambda step: step.site.order):
            edit = lower_step(step, conditions, rows, layout)
            visit(visits, step.site, layout)["edits"].append(edit)
    if len(rows_of) > 1:
        for there in visits.values():
            there["edits"] = packed(there["edits"], len(programs))
    return plan(conditions, visits, layout) | {"ahead": any(map(edits_before_reading, rows_of))}


def reading_plan(conditions: Sequence[Condition], layout: Layout) -> dict:
    """The plan that only reads `conditions`."""
    return plan(conditions, reading_visits(conditions, layout), layout)


def distinct_conditions(programs: Sequence[Program]) -> list[Condition]:
    """Each condition once, in the order in which a batch's plan numbers them."""
    distinct = dict.fromkeys(programs)
    return list(dict.fromkeys(c for program in distinct for c in program.conditions))


def plan(conditions: Sequence[Condition], visits: dict[tuple, dict], layout: Layout) -> dict:
    """Conditions as plain values, visits in forward order."""
    ordered = sorted(visits.values(), key=lambda visit: visit["order"])
    return {
        "conditions": [lower_condition(condition, layout) for condition in conditions],
        "visits": [visit | {"decodes": any(map(decodes, visit["edits"]))} for visit in ordered],
        "scores": [],
    }


def decodes(edit: dict) -> bool:
    """Whether an edit can touch a generated token; where none can, decode steps pass it by."""
    where = edit["where"]
    if where["at"] is not None:
        return max(where["at"]) >= 0
    return where["stop"] is None or where["stop"] > 0


def reading_visits(conditions: Sequence[Condition], layout: Layout) -> dict[tuple, dict]:
    """One visit per module at which a condition is read."""
    visits: dict[tuple, dict] = {}
    for number, condition in enumerate(conditions):
        visit(visits, condition.site, layout)["conditions"].append(number)
    return visits


def visit(visits: dict[tuple, dict], site: Place, layout: Layout) -> dict:
    """The entry of the site's module, made on first use; the heads of a layer share one."""
    path, is_input = layout.path(site), layout.reads_input(site)
    new = {"path": path, "input": is_input, "site": str(site), "order": site.order}
    new |= {"shared": None, "conditions": [], "edits": [], "decodes": False}
    return visits.setdefault((path, is_input), new)


def edits_before_reading(program: Program) -> bool:
    """Whether the first edit comes before the last condition, which reads the unsteered prompt."""
    read = [condition.site.order for condition in program.conditions]
    return bool(read) and min(step.site.order for step in program.steps) < max(read)


def lower_condition(condition: Condition, layout: Layout) -> dict:
    """A condition as plain values."""
    return {
        "vector": condition.direction.vector,
        "origin": condition.direction.origin,
        "threshold": condition.threshold,
        "above": condition.fires_when == "above",
        "score": condition.score,
        "where": lower_where(condition.span),
        "columns": layout.columns(condition.site),
    }


def lower_step(
    step: Step, conditions: Sequence[Condition], rows: Tensor | None, layout: Layout
) -> dict:
    """An edit as plain values; `rows` [some] has the rows that run its program, None for all."""
    return lower_op(step.op) | {
        "where": lower_where(step.span),
        "rows": rows,
        "when": None if step.when is None else postfix(step.when, conditions),
        "columns": layout.columns(step.site),
    }


def packed(edits: Sequence[dict], rows: int) -> list[dict]:
    """Fewer edits that do the same for a batch of so many `rows`: additions of several programs on
    the same tokens become one. Each program's own edits keep their order."""
    groups: dict[tuple, list[dict]] = {}
    made: Counter[tuple] = Counter()  # edits so far of the program that those rows run
    for number, edit in enumerate(edits):
        edited = tuple(edit["rows"].tolist())
        key: tuple = (made[edited], number)
        if edit["kind"] == "linear" and edit["right"] is edit["norm"] is edit["gate"] is None:
            key = (made[edited], *edit["where"].values(), edit["when"], edit["columns"])
        made[edited] += 1
        groups.setdefault(key, []).append(edit)
    ordered = [groups[key] for key in sorted(groups, key=itemgetter(0))]
    return [group[0] if len(group) == 1 else one_addition(group, rows) for group in ordered]


def one_addition(edits: Sequence[dict], rows: int) -> dict:
    """Additions that differ in their rows and shifts alone, as one: shifts [edit, hidden], and the
    number of each row's."""
    numbers = torch.cat([edit["rows"] for edit in edits])
    order = numbers.argsort()
    lengths = torch.tensor([len(edit["rows"]) for edit in edits])
    which = torch.arange(len(edits)).repeat_interleave(lengths)[order]
    shifts = torch.stack([edit["shift"] for edit in edits])
    some = None if len(numbers) == rows else numbers[order]
    return edits[0] | {"rows": some, "shift": shifts, "shift_of": which}


def lower_where(span: Where) -> dict:
    """A span as plain values."""
    if isinstance(span, Positions):
        return {"first": None, "stop": None, "at": span.at}
    return {"first": span.first, "stop": span.stop, "at": None}


def postfix(when: When, conditions: Sequence[Condition]) -> tuple[int | str, ...]:
    """A combination of conditions, by number, operators last."""
    if isinstance(when, Condition):
        return (conditions.index(when),)
    first, *rest = (postfix(part, conditions) for part in when.parts)
    word = "and" if isinstance(when, AllOf) else "or"
    return first + tuple(item for part in rest for item in (*part, word))


def lower_op(op: ops.Op) -> dict:
    """The op's kind and tensors. For "linear": left and right [rank, hidden], center and shift
    [hidden]; `right` is None for an addition, which may have several shifts [shift, hidden] and say
    which is a row's, `shift_of` [row]."""
    match op:
        case ops.Add(direction=d, strength=strength):
            return linear(None, None, None, strength * d.vector)
        case ops.Ablate(direction=d, strength=strength):
            return project(basis([d]), strength)
        case ops.AblateSubspace(directions=ds, strength=strength):
            return project(basis(ds), strength)
        case ops.Affine(direction=d, alpha=alpha):
            return project(basis([d])) | {"center": d.origin, "shift": alpha * d.vector}
        case ops.Clamp(direction=d, value=value):
            return project(basis([d])) | {"shift": value * d.vector}
        case ops.Rotate(first=first, second=second, degrees=degrees):
            plane = basis([first, second])
            angle = torch.tensor(math.radians(degrees))
            target = torch.cos(angle) * plane[0] + torch.sin(angle) * plane[1]
            return {"kind": "rotate", "plane": plane, "target": target} | UNBOUND
        case ops.Edit(editor=e):
            gate = None if e.gate is None else dict(vars(e.gate))
            return linear(e.left, e.right, e.center, e.shift) | {"gate": gate}
        case ops.Custom(function=function, tensors=tensors):
            return {"kind": "custom", "function": function, "tensors": tensors} | UNBOUND
        case ops.KeepNorm(op=inner):
            return lower_op(inner) | {"norm": "keep"}
        case ops.BoundNorm(op=inner):
            lowered = lower_op(inner)
            return lowered | {"norm": lowered["norm"] or "bound"}


def linear(left: Tensor | None, right: Tensor | None, center: Tensor | None, shift: Tensor) -> dict:
    """The affine kernel's factors."""
    factors = {"left": left, "right": right, "center": center, "shift": shift, "shift_of": None}
    return {"kind": "linear"} | UNBOUND | factors


def project(rows: Tensor, strength: float = 1.0) -> dict:
    """Takes `strength` times the projection on orthonormal `rows` [rank, hidden] away."""
    nowhere = torch.zeros_like(rows[0])
    return linear(strength * rows, rows, nowhere, nowhere)


def basis(directions: Sequence[Direction]) -> Tensor:
    """Orthonormal rows [rank, hidden] that span the directions, the first along the first. Raises
    UserError when they span less than their number."""
    rows: list[Tensor] = []
    for direction in directions:
        v = direction.vector.double()
        rest = v - sum((v @ row * row for row in rows), torch.zeros_like(v))
        if rest.norm() <= 1e-6 * v.norm() or v.norm() == 0:
            raise UserError(
                f"{direction}: its length is 0, or it lies along those before it, so it can't be "
                "projected on"
            )
        rows.append(rest / rest.norm())
    return torch.stack(rows).float()
