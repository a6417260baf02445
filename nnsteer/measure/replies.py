"""Two answers to a prompt: which of them the model would write, and by how much it prefers one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from nnsteer.errors import UserError
from nnsteer.kernels.logits import choices
from nnsteer.model.chat import Chat
from nnsteer.model.completion import by_row
from nnsteer.model.runner import Runner
from nnsteer.program.program import Program
from nnsteer.texts.contrast import Text
from nnsteer.texts.source import Prompt

Pair = tuple[str, str]


class Reply(NamedTuple):
    """What the model would write where two answers part."""

    chosen: str | None
    """The one of the two whose token comes first of all; None where it is another token."""
    token: str
    """The most likely token's text."""
    margin: float
    """The first answer's logit minus the second's."""


def replies(
    runner: Runner, prompts: Sequence[Prompt], pairs: Sequence[Pair], programs: Sequence[Program]
) -> list[Reply]:
    """One greedy token after each prompt and what its two answers share."""
    partings = [parting(runner.chat, pair) for pair in pairs]
    tokens = [both for _, *both in partings]
    texts = [Text(prompt.text, first) for prompt, (first, _) in zip(prompts, pairs, strict=True)]
    whole = zip(runner.chat.rows(texts), partings, strict=True)
    rows = [(prompt, answer[:shared]) for (prompt, answer), (shared, *_) in whole]
    found = {}
    for batch, steering, numbers in runner.batches(rows, programs):
        asked = torch.tensor([tokens[i] for i in numbers])
        taken = runner.reduce_logits(batch, steering, 1, choices, asked)
        tops, logits = taken["top"].tolist(), taken["asked"].tolist()
        for i, top, (first, second) in zip(numbers, tops, logits, strict=True):
            answer_of = dict(zip(tokens[i], pairs[i], strict=True))
            text = runner.chat.tokenizer.decode([top])
            found[i] = Reply(answer_of.get(top), text, first - second)
    return by_row(found)


def parting(chat: Chat, pair: Pair) -> tuple[int, int, int]:
    """How many tokens the two answers share, and the first token of each after those."""
    first, second = (chat.response_ids(text) for text in pair)
    for at, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return at, a, b
    raise UserError(
        f"answers {pair[0]!r} and {pair[1]!r}: one begins with the other; "
        "give two whose tokens differ"
    )
