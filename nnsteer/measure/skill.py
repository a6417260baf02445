"""How well the steered model predicts given text: the skill that steering takes, and the price of
steering elsewhere. The prompt is the text: without a chat template, its first `max_tokens` tokens,
all of them prompt to the program's spans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.kernels.logits import losses, ranks
from nnsteer.measure.kinds import ModelMeasure, Value, fingerprint
from nnsteer.model.completion import by_row
from nnsteer.model.runner import Runner
from nnsteer.model.traces import Take
from nnsteer.program.program import Program
from nnsteer.texts.source import Prompt

MAX_TOKENS = 512  # of each text
LOGITS_AT_ONCE = 2**28  # 1 GiB in fp32


def top_k(k: int = 1, skip: Sequence[int] = (), max_tokens: int = MAX_TOKENS) -> ModelMeasure:
    """The share of a text's tokens that are among the `k` most likely ones after the tokens before
    them; tokens in `skip` are left out of the count (van der Weij et al. 2024, arXiv 2403.05767).
    NaN where no token is counted."""
    if k < 1:
        raise UserError(f"top {k}: k must be at least 1")

    def share(tokens: Tensor, ranks: Tensor) -> float:
        return (ranks < k)[counted(tokens, skip)].double().mean().item()

    skipped = f", without {len(skip)} tokens {fingerprint(sorted(skip))}" if skip else ""
    return of_texts(f"top-{k}", skipped, max_tokens, ranks, share)


def text_loss(max_tokens: int = MAX_TOKENS) -> ModelMeasure:
    """The mean loss of a text's tokens, in nats. NaN for a text of one token."""
    mean = lambda tokens, losses: losses.mean().item()  # noqa: E731, ARG005
    return of_texts("cross-entropy", ", nats", max_tokens, losses, mean)


def hits(max_tokens: int = MAX_TOKENS) -> ModelMeasure:
    """How many tokens of a text are predicted, how many of them are the most likely one, and how
    many among the ten most likely: `tokens`, `top1` and `top10`, from one pass."""

    def counts(tokens: Tensor, ranks: Tensor) -> dict[str, int]:
        top1, top10 = (int((ranks < k).sum()) for k in (1, 10))
        return {"tokens": len(tokens), "top1": top1, "top10": top10}

    return of_texts("hits", "", max_tokens, ranks, counts)


def counted(tokens: Tensor, skip: Sequence[int]) -> Tensor:
    """Which tokens are not in `skip`, bool [token]."""
    return ~torch.isin(tokens, torch.tensor(list(skip), dtype=torch.long))


def of_texts(
    name: str, how: str, max_tokens: int, take: Take, value: Callable[[Tensor, Tensor], Value]
) -> ModelMeasure:
    """The measure of what `value` makes of a text's tokens but the first, and of what `take` makes
    of the steered model's logits of them, both [token - 1]."""

    def values(
        runner: Runner, programs: Sequence[Program], prompts: Sequence[Prompt]
    ) -> list[Value]:
        taken = of_tokens(take, runner, programs, texts(runner, prompts, max_tokens))
        return [value(tokens, numbers) for tokens, numbers in taken]

    return ModelMeasure(name, f"first {max_tokens} tokens{how}", False, values)


def texts(runner: Runner, prompts: Sequence[Prompt], max_tokens: int) -> list[list[int]]:
    """The tokens of each text, no more than the model has positions for."""
    plain = replace(runner.chat, templated=False)
    config = runner.hf.config.get_text_config()
    limit = min(max_tokens, getattr(config, "max_position_embeddings", max_tokens))
    return [plain.prompt_ids(prompt.text)[:limit] for prompt in prompts]


def of_tokens(
    take: Take, runner: Runner, programs: Sequence[Program], rows: Sequence[list[int]]
) -> list[tuple[Tensor, Tensor]]:
    """Each row's tokens but the first, and what is taken of them; so few rows at once that their
    logits fit into memory."""
    longest = max(map(len, rows), default=1)
    at_once = LOGITS_AT_ONCE // (longest * runner.hf.config.get_text_config().vocab_size)
    small = runner.with_batch_size(max(1, min(runner.batch_size, at_once)))
    prompts: list[tuple[list[int], list[int]]] = [(ids, []) for ids in rows]
    taken = {}
    for batch, in_batch, numbers in small.batches(prompts, programs):
        values = small.reduce_logits(batch, in_batch, 0, take, batch.ids)
        lengths = batch.mask.sum(1).tolist()
        for number, row, ids, n in zip(numbers, values, batch.ids, lengths, strict=True):
            taken[number] = (ids[len(ids) - n + 1 :], row[len(ids) - n :])
    return by_row(taken)
