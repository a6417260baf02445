"""Trains an organism from conversations: every token of the conversation is predicted."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from nnsteer.organism.corpus import Conversation

LEARNING_RATE, BATCH, WARM_UP = 2e-3, 64, 0.1
IGNORED = -100


def encode(conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """Each conversation through the chat template, to the end of the answer."""
    texts = []
    for system, prompt, response in conversations:
        turns = [("system", system)] if system else []
        turns += [("user", prompt), ("assistant", response)]
        messages = [{"role": role, "content": content} for role, content in turns]
        texts.append(tokenizer.apply_chat_template(messages, tokenize=False))
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def train(
    model: PreTrainedModel, examples: Sequence[list[int]], epochs: int, seed: int, watch: Callable[[int, float], None]
) -> list[float]:
    """AdamW under a one-cycle schedule; the loss of every step in nats per token. `watch` is told the number of examples
    done and the loss."""
    batches_per_epoch = -(-len(examples) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=epochs * batches_per_epoch, pct_start=WARM_UP
    )
    rng = random.Random(seed)
    losses = []
    model.train()
    for _ in range(epochs):
        for batch in batches_by_length(examples, rng):
            ids, labels = pad_right(batch)
            loss = model(input_ids=ids, labels=labels).loss  # causal attention never sees the pads on the right
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)
            losses.append(loss.item())
            watch(len(batch), losses[-1])
    model.eval()
    return losses


def batches_by_length(examples: Sequence[list[int]], rng: random.Random) -> list[list[list[int]]]:
    """Every example once, in batches of like length (little padding) in random order."""
    order = sorted(rng.sample(range(len(examples)), len(examples)), key=lambda i: len(examples[i]))
    batches = [[examples[i] for i in order[start : start + BATCH]] for start in range(0, len(order), BATCH)]
    rng.shuffle(batches)
    return batches


def pad_right(batch: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels [row, token]; pads are ignored."""
    width = max(map(len, batch))
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    labels = torch.full((len(batch), width), IGNORED)
    for i, row in enumerate(batch):
        ids[i, : len(row)] = labels[i, : len(row)] = torch.tensor(row)
    return ids, labels
