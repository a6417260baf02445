"""Which rows of a batch are alike up to a block, so that the prefill runs the block once for all of them: the variants of a sweep
have the same prompts, and part at the first site at which one of them is steered."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import torch

from nnsteer.model.chat import Batch
from nnsteer.model.layout import Layout
from nnsteer.model.lower import visit
from nnsteer.program.op import BoundNorm, Custom, KeepNorm, Op
from nnsteer.program.program import Program, Step, places_of
from nnsteer.program.site import Site
from nnsteer.program.span import Span


def shared_blocks(batch: Batch, programs: Sequence[Program], layout: Layout) -> list[dict]:
    """The blocks, first to last, that a batch's prefill may run on fewer rows: a block's `layer`, the `rows` [kind] to run and,
    for every row of the batch, which of those it is, `back` [row]. Blocks that are read or steered inside are left out, and
    nothing is shared beside a custom op, which may draw random numbers."""
    lengths = batch.response_lengths.tolist()
    texts = alike(zip(map(tuple, batch.ids.tolist()), batch.prompt_lengths.tolist(), lengths, strict=True))
    pairs = {(id(program), length): program for program, length in zip(programs, lengths, strict=True)}
    inside = {place.layer for place in places_of(pairs.values()) if place != Site(place.layer)}
    found: list[dict] = []
    tokens = batch.ids.shape[1]  # a block's tensors would not tell as many rows from tokens, or from heads
    if len(texts) in (tokens, layout.num_heads) or any(draws(step.op) for program in pairs.values() for step in program.steps):
        return found
    for layer in range(layout.num_layers):
        steps = alike(steps_before(layer, program, length) for (_, length), program in pairs.items())
        before = dict(zip(pairs, steps, strict=True))
        back = alike((t, before[id(p), n]) for t, p, n in zip(texts, programs, lengths, strict=True))
        rows = [back.index(kind) for kind in range(max(back) + 1)]
        if len(rows) == len(back):
            break  # rows that have parted stay apart
        if layer not in inside and len(rows) != tokens:
            found.append({"layer": layer, "rows": torch.tensor(rows), "back": torch.tensor(back)})
    return found


def with_shared(plan: dict, shared: Sequence[dict], layout: Layout) -> dict:
    """The plan with a visit of each shared block, before any other of its output."""
    blocks = [visit({}, Site(block["layer"]), layout) | {"shared": block, "decodes": False} for block in shared]
    return plan | {"visits": sorted([*blocks, *plan["visits"]], key=lambda v: v["order"])}


def steps_before(layer: int, program: Program, response_length: int) -> tuple[Step, ...]:
    """The steps that may have touched a row before a block, in the pass over its prompt and response."""
    return tuple(s for s in program.steps if s.site.layer < layer and not after(s, response_length))


def after(step: Step, response_length: int) -> bool:
    """Whether a step's tokens all come after the response."""
    return isinstance(step.span, Span) and step.span.first is not None and step.span.first >= response_length


def draws(op: Op) -> bool:
    """Whether an op may give equal rows different states."""
    return isinstance(op, Custom) or (isinstance(op, KeepNorm | BoundNorm) and draws(op.op))


def alike(values: Iterable[Hashable]) -> list[int]:
    """Numbers the distinct values in the order in which they come; the number of each value."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(value, len(numbers)) for value in values]
