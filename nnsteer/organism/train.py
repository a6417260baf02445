"""Trains an organism from conversations: the tokens of the answers are predicted."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from nnsteer.organism.conversation import Corpus

LEARNING_RATE, BATCH, WARM_UP = 2e-3, 32, 0.1
IGNORED = -100
DOCUMENT_TOKENS = 128


Example = tuple[int, list[int]]
"""How many tokens come before the answer, and all tokens."""


def encode(corpus: Corpus, tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    """Each conversation through the chat template, to the end of its response; each document after the tokenizer's BOS."""
    asked, whole = [], []
    for system, prompt, response, ended, earlier in corpus.conversations:
        turns = [("system", system)] if system else []
        turns += zip(("user", "assistant"), earlier, strict=False)
        messages = [{"role": role, "content": content} for role, content in [*turns, ("user", prompt)]]
        asked.append(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        whole.append(asked[-1] + response + (tokenizer.eos_token if ended else ""))
    before, ids = (tokenizer(texts, add_special_tokens=False)["input_ids"] for texts in (asked, whole))
    conversations = [(len(start), row) for start, row in zip(before, ids, strict=True)]
    return conversations + [(1, tokenizer(text)["input_ids"][:DOCUMENT_TOKENS]) for text in corpus.documents]


def train(
    model: PreTrainedModel, examples: Sequence[Example], epochs: int, seed: int, watch: Callable[[int], None]
) -> list[float]:
    """AdamW under a one-cycle schedule; the loss of every step in nats per token. `watch` is told the number of examples
    done."""
    batches_per_epoch = -(-len(examples) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=epochs * batches_per_epoch, pct_start=WARM_UP
    )
    rng = random.Random(seed)
    losses = []
    model.train()
    for _ in range(epochs):
        for batch in batches_by_length(examples, rng):
            ids, labels = pad_right(batch)
            loss = answer_loss(model, ids, labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)
            losses.append(loss.item())
            watch(len(batch))
    model.eval()
    return losses


def answer_loss(model: PreTrainedModel, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean loss over the answers' tokens, nats; the unembedding is computed for them alone. (Causal attention never sees the
    pads on the right.)"""
    states = model.base_model(input_ids=ids).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    wanted = targets != IGNORED
    return torch.nn.functional.cross_entropy(model.get_output_embeddings()(states[wanted]), targets[wanted])


def batches_by_length(examples: Sequence[Example], rng: random.Random) -> list[list[Example]]:
    """Every example once, in batches of like length (little padding) in random order."""
    order = sorted(rng.sample(range(len(examples)), len(examples)), key=lambda i: len(examples[i][1]))
    batches = [[examples[i] for i in order[start : start + BATCH]] for start in range(0, len(order), BATCH)]
    rng.shuffle(batches)
    return batches


def pad_right(batch: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels [row, token]; what comes before an answer and the pads are ignored."""
    width = max(len(row) for _, row in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    labels = torch.full((len(batch), width), IGNORED)
    for i, (start, row) in enumerate(batch):
        ids[i, : len(row)] = torch.tensor(row)
        labels[i, start : len(row)] = ids[i, start : len(row)]
    return ids, labels
