"""One batch of rows on a runner's model: programs are lowered, run in a trace, and what they made
is brought home."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nnsteer.model import traces
from nnsteer.model.cache import check_cache_survives, expands, roomy_cache
from nnsteer.model.chat import Batch
from nnsteer.model.completion import Completion, by_row, completions, end_ids
from nnsteer.model.lower import lower
from nnsteer.model.reading import tokens_to_read
from nnsteer.model.sharing import shared_blocks, with_shared
from nnsteer.program.program import Program

Runner = Any
"""A `model.runner.Runner`, whose passes these are."""


def prepare(runner: Runner, batch: Batch, programs: Sequence[Program]) -> dict:
    """The lowered programs, with the conditions' scores where an edit comes before the condition
    that decides it. Every direction must belong to this model."""
    for program in dict.fromkeys(programs):
        runner.check(program)
        for condition in program.conditions:
            tokens_to_read(batch, condition.span)
    plan = lower(programs, runner.layout)
    if plan["ahead"]:
        plan["scores"] = list(traces.read_scores(runner.envoy, runner.remote, plan, [batch]))
    return plan


def shared(runner: Runner, batch: Batch, programs: Sequence[Program]) -> list[dict]:
    """The blocks that a prefill runs once for several rows: none on a server, nor where the model's
    own loss asks for every row's routes."""
    if runner.remote is not None or getattr(runner.hf.config, "output_router_logits", False):
        return []
    return shared_blocks(batch, programs, runner.layout)


def reduce_logits(
    runner: Runner,
    batch: Batch,
    programs: Sequence[Program],
    last: int,
    take: traces.Take,
    wanted: Tensor,
) -> Any:
    """What `take` makes of the steered logits of the `last` tokens (0: of all)."""
    plan = prepare(runner, batch, programs)
    plan = with_shared(plan, shared(runner, batch, programs), runner.layout)
    return traces.steered_pass(runner.envoy, runner.remote, plan, batch, last, take, wanted)


def of_responses(
    runner: Runner, rows: list, program: Any, take: traces.Take, before: int
) -> list[Tensor]:
    """What `take` makes of each row's logits, token by token, for its response and so many tokens
    `before` it."""
    values: dict[int, Tensor] = {}
    for batch, programs, numbers in runner.batches(rows, program):
        last = batch.answer_and_one
        made = reduce_logits(runner, batch, programs, last, take, batch.ids[:, -last:])
        lengths = batch.response_lengths.tolist()
        for number, row, length in zip(numbers, made, lengths, strict=True):
            values[number] = row[len(row) - length - before :]
    return by_row(values)


def answers(
    runner: Runner,
    batch: Batch,
    programs: Sequence[Program],
    prompts: Sequence[str],
    new_tokens: int,
    sampling: dict | None,
) -> list[Completion]:
    """Generates at most `new_tokens` tokens a row; `sampling` is `kernels.logits.gumbel`'s, None
    for greedy."""
    check_cache_survives(runner.layout, programs)
    plan, blocks = prepare(runner, batch, programs), shared(runner, batch, programs)
    back = {block["layer"]: block["back"] for block in blocks}
    cache = roomy_cache(runner.hf, new_tokens, back) if runner.remote is None else None
    if expands(cache):
        plan = with_shared(plan, blocks, runner.layout)
    call = (plan, batch, new_tokens, sampling, runner.layout.head, cache)
    ids, scores = traces.generate(runner.envoy, runner.remote, *call)
    new, ends = ids[:, batch.ids.shape[1] :], end_ids(runner.hf)
    return completions(new, scores, programs, prompts, runner.chat.tokenizer, ends)
