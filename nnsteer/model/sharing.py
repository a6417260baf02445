"""Which rows of a batch are alike up to a block, so that the prefill runs the block once for all of
them: the variants of a sweep have the same prompts, and part at the first site at which one of them
is steered."""

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
    """The blocks, first to last, that a batch's prefill may run on fewer rows: a block's `layer`,
    the `rows` [kind] to run and, for every row of the batch, which of those it is, `back` [row].
    Blocks that are read or steered inside are left out, and nothing is shared beside a custom op,
    which may draw random numbers."""
    lengths = batch.response_lengths.tolist()
    tokens = batch.ids.shape[1]
    ids = map(tuple, batch.ids.tolist())
    texts = alike(zip(ids, batch.prompt_lengths.tolist(), lengths, strict=True))
    # a block's tensors would not tell as many rows from tokens, or from heads
    if len(texts) in (tokens, layout.num_heads):
        return []
    distinct = {(id(p), length): p for p, length in zip(programs, lengths, strict=True)}
    if any(draws(step.op) for program in distinct.values() for step in program.steps):
        return []
    inside = {place.layer for place in places_of(distinct.values()) if place != Site(place.layer)}
    blocks: list[dict] = []
    for layer in range(layout.num_layers):
        steps = alike(steps_before(layer, p, length) for (_, length), p in distinct.items())
        before = dict(zip(distinct, steps, strict=True))
        kinds = [before[id(p), length] for p, length in zip(programs, lengths, strict=True)]
        back = alike(zip(texts, kinds, strict=True))
        rows = [back.index(kind) for kind in range(max(back) + 1)]
        if len(rows) == len(back):
            break  # rows that have parted stay apart
        if layer not in inside and len(rows) != tokens:
            numbers = {"rows": torch.tensor(rows), "back": torch.tensor(back)}
            blocks.append({"layer": layer} | numbers)
    return blocks


def with_shared(plan: dict, shared: Sequence[dict], layout: Layout) -> dict:
    """The plan with a visit of each shared block, before any other of its output."""
    blocks = [visit({}, Site(b["layer"]), layout) | {"shared": b} for b in shared]
    visits = sorted([*blocks, *plan["visits"]], key=lambda visit: visit["order"])
    return plan | {"visits": visits}


def steps_before(layer: int, program: Program, response_length: int) -> tuple[Step, ...]:
    """The steps that may have touched a row before a block, in the pass over its prompt and
    response."""
    before = [step for step in program.steps if step.site.layer < layer]
    return tuple(step for step in before if not after(step, response_length))


def after(step: Step, response_length: int) -> bool:
    """Whether a step's tokens all come after the response."""
    first = step.span.first if isinstance(step.span, Span) else None
    return first is not None and first >= response_length


def draws(op: Op) -> bool:
    """Whether an op may give equal rows different states."""
    return isinstance(op, Custom) or (isinstance(op, KeepNorm | BoundNorm) and draws(op.op))


def alike(values: Iterable[Hashable]) -> list[int]:
    """Numbers the distinct values in the order in which they come; the number of each value."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(value, len(numbers)) for value in values]
