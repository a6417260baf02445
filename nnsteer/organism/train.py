"""Trains an organism from conversations: the tokens of the answers are predicted, and what the prompts mean is learnt from a
sentence encoder where one is given."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from nnsteer.errors import UserError
from nnsteer.organism.build import POSITIONS
from nnsteer.organism.conversation import Corpus

LEARNING_RATE, BATCH, WARM_UP = 2e-3, 32, 0.1
IGNORED = -100
DOCUMENT_TOKENS = 128
MEANING_AFTER = 2  # blocks: the stream between them and the next says what the prompt means


class Example(NamedTuple):
    """`asked` counts the tokens before the answer; `meaning` is the prompt's sentence vector [encoder's hidden]."""

    asked: int
    ids: list[int]
    meaning: Tensor | None = None


def encode(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, meanings: Sequence[Tensor] | None = None) -> list[Example]:
    """Each conversation through the chat template, to the end of its response; each document after the tokenizer's BOS.
    `meanings` has a vector per conversation."""
    asked, whole = [], []
    for system, prompt, response, ended in corpus.conversations:
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        asked.append(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        whole.append(asked[-1] + response + (tokenizer.eos_token if ended else ""))
    before, ids = (tokenizer(texts, add_special_tokens=False)["input_ids"] for texts in (asked, whole))
    known = meanings if meanings is not None else [None] * len(ids)
    conversations = [Example(len(start), row, meaning) for start, row, meaning in zip(before, ids, known, strict=True)]
    longest = max(conversations, key=lambda example: len(example.ids), default=None)
    if longest and len(longest.ids) > POSITIONS:
        start = tokenizer.decode(longest.ids[:12])
        raise UserError(f"conversation {start!r}...: {len(longest.ids)} tokens, the model reads {POSITIONS}; shorten it")
    return conversations + [Example(1, tokenizer(text)["input_ids"][:DOCUMENT_TOKENS]) for text in corpus.documents]


def train(
    model: PreTrainedModel, examples: Sequence[Example], epochs: int, seed: int, watch: Callable[[int], None]
) -> list[float]:
    """AdamW under a one-cycle schedule; the loss over the answers at every step, in nats per token. `watch` is told the number
    of examples done."""
    widths = {len(example.meaning) for example in examples if example.meaning is not None}
    reader = nn.Linear(model.config.hidden_size, widths.pop()) if widths else None
    parameters = [*model.parameters(), *(reader.parameters() if reader else [])]
    optimiser, schedule = one_cycle(parameters, LEARNING_RATE, epochs * -(-len(examples) // BATCH), weight_decay=0.1)
    rng = random.Random(seed)
    losses = []
    model.train()
    for _ in range(epochs):
        for batch in batches_by_length(examples, rng):
            ids, labels = pad_right(batch)
            out = model.base_model(input_ids=ids, output_hidden_states=reader is not None)
            loss = answer_loss(model, out.last_hidden_state, labels)
            losses.append(loss.item())
            if reader is not None:
                loss = loss + meaning_loss(reader, out.hidden_states[MEANING_AFTER], batch)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)
            watch(len(batch))
    model.eval()
    return losses


def one_cycle(
    parameters: list[nn.Parameter], rate: float, steps: int, weight_decay: float
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW, and a schedule that warms it up to `rate` and down again."""
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay)
    return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=WARM_UP)


def answer_loss(model: PreTrainedModel, states: Tensor, labels: Tensor) -> Tensor:
    """Mean loss over the answers' tokens, nats, from the last states [row, token, hidden]; the unembedding is computed for them
    alone. (Causal attention never sees the pads on the right.)"""
    targets = labels[:, 1:]
    wanted = targets != IGNORED
    return cross_entropy(model.get_output_embeddings()(states[:, :-1][wanted]), targets[wanted])


def meaning_loss(reader: nn.Linear, states: Tensor, batch: Sequence[Example]) -> Tensor:
    """One minus the cosine between a prompt's vector and what `reader` makes of its mean state over the prompt, averaged over
    the examples that have one."""
    known = [(i, example.asked, example.meaning) for i, example in enumerate(batch) if example.meaning is not None]
    if not known:
        return states.new_zeros(())
    rows, asked, meanings = zip(*known, strict=True)
    lengths = torch.tensor(asked)
    inside = (torch.arange(states.shape[1]) < lengths[:, None]).float()[..., None]
    means = (states[list(rows)] * inside).sum(1) / lengths[:, None]
    return 1 - cosine_similarity(reader(means), torch.stack(meanings)).mean()


def batches_by_length(examples: Sequence[Example], rng: random.Random) -> list[list[Example]]:
    """Every example once, in batches of like length (little padding) in random order."""
    order = sorted(rng.sample(range(len(examples)), len(examples)), key=lambda i: len(examples[i].ids))
    batches = [[examples[i] for i in order[start : start + BATCH]] for start in range(0, len(order), BATCH)]
    rng.shuffle(batches)
    return batches


def pad_right(batch: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels [row, token]; what comes before an answer and the pads are ignored."""
    width = max(len(example.ids) for example in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    labels = torch.full((len(batch), width), IGNORED)
    for i, (start, row, _) in enumerate(batch):
        ids[i, : len(row)] = torch.tensor(row)
        labels[i, start : len(row)] = ids[i, start : len(row)]
    return ids, labels
