"""How well the steered model predicts given text: the skill that steering takes, and the price of steering elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.kernels.logits import losses, ranks
from nnsteer.measure.kinds import OfModel, fingerprint
from nnsteer.model.completion import by_row
from nnsteer.model.runner import Runner
from nnsteer.model.traces import Take
from nnsteer.program.program import Program
from nnsteer.texts.source import Prompt

MAX_TOKENS = 512  # of each text
LOGITS_AT_ONCE = 2**28  # 1 GiB in fp32


class Hits(NamedTuple):
    """How many tokens of a text are predicted, and how many of them are the most likely one, or among the ten most likely."""

    tokens: int
    top1: int
    top10: int


def top_k(k: int = 1, skip: Sequence[int] = (), max_tokens: int = MAX_TOKENS) -> OfModel:
    """The share of a text's tokens that are among the `k` most likely ones after the tokens before them; tokens in `skip` are
    left out of the count (van der Weij et al. 2024, arXiv 2403.05767). The prompt is the text: without a chat template, its first
    `max_tokens` tokens, all of them prompt to the program's spans. NaN where no token is counted. `pooled` joins texts."""
    if k < 1:
        raise UserError(f"top {k}: k must be at least 1")

    def values(runner: Runner, programs: Sequence[Program], prompts: Sequence[Prompt]) -> list[float]:
        found = of_tokens(ranks, runner, programs, prompts, max_tokens)
        return [(own < k)[counted(tokens, skip)].double().mean().item() for tokens, own in found]

    skipped = f", without {len(skip)} tokens {fingerprint(sorted(skip))}" if skip else ""
    return OfModel(f"top-{k}", f"first {max_tokens} tokens{skipped}", False, values)


def text_loss(max_tokens: int = MAX_TOKENS) -> OfModel:
    """The mean loss of a text's tokens, in nats, of the same texts as `top_k`. NaN for a text of one token."""

    def values(runner: Runner, programs: Sequence[Program], prompts: Sequence[Prompt]) -> list[float]:
        return [own.mean().item() for _, own in of_tokens(losses, runner, programs, prompts, max_tokens)]

    return OfModel("cross-entropy", f"first {max_tokens} tokens, nats", False, values)


def hits(runner: Runner, programs: Sequence[Program], prompts: Sequence[Prompt], max_tokens: int = MAX_TOKENS) -> list[Hits]:
    """The counts behind top-1 and top-10 of each text (see `top_k`), from one pass."""
    found = of_tokens(ranks, runner, programs, prompts, max_tokens)
    return [Hits(len(own), int((own < 1).sum()), int((own < 10).sum())) for _, own in found]


def predictions(max_tokens: int = MAX_TOKENS) -> OfModel:
    """The counts themselves, {"tokens", "top1", "top10"}, of the same texts as `top_k`."""

    def values(
        runner: Runner, programs: Sequence[Program], prompts: Sequence[Prompt]
    ) -> list[dict[str, float | str]]:
        return [counts._asdict() for counts in hits(runner, programs, prompts, max_tokens)]

    return OfModel("predictions", f"first {max_tokens} tokens", False, values)


def predicted(runner: Runner, prompts: Sequence[Prompt], skip: Sequence[int] = (), max_tokens: int = MAX_TOKENS) -> list[int]:
    """How many tokens of each text are predicted and counted."""
    return [int(counted(torch.tensor(ids[1:]), skip).sum()) for ids in texts(runner, prompts, max_tokens)]


def counted(tokens: Tensor, skip: Sequence[int]) -> Tensor:
    """Which tokens are not in `skip`, bool [token]."""
    return ~torch.isin(tokens, torch.tensor(list(skip), dtype=torch.long))


def texts(runner: Runner, prompts: Sequence[Prompt], max_tokens: int) -> list[list[int]]:
    """The tokens of each text, without a template, no more than the model has positions for."""
    plain = replace(runner.chat, templated=False)
    limit = min(max_tokens, getattr(runner.hf.config.get_text_config(), "max_position_embeddings", max_tokens))
    return [plain.prompt_ids(prompt.text)[:limit] for prompt in prompts]


def of_tokens(
    take: Take, runner: Runner, programs: Sequence[Program], prompts: Sequence[Prompt], max_tokens: int
) -> list[tuple[Tensor, Tensor]]:
    """Each text's tokens but the first, and what `take` makes of the steered model's logits of them, [token - 1] both."""
    rows: list[tuple[list[int], list[int]]] = [(ids, []) for ids in texts(runner, prompts, max_tokens)]
    width = max((len(ids) for ids, _ in rows), default=1) * runner.hf.config.get_text_config().vocab_size
    small = runner.with_batch_size(max(1, min(runner.batch_size, LOGITS_AT_ONCE // width)))
    found = {}
    for batch, own, numbers in small.batches(rows, programs):
        values = small.taken(batch, own, 0, take, batch.ids)
        for i, row, ids, n in zip(numbers, values, batch.ids, batch.mask.sum(1).tolist(), strict=True):
            found[i] = (ids[len(ids) - n + 1 :], row[len(ids) - n :])
    return by_row(found)
