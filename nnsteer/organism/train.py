"""Trains an organism from conversations: the tokens of the answers are predicted, and what the
prompts mean is learnt from a sentence encoder where one is given."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.optim.lr_scheduler import OneCycleLR
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from nnsteer.errors import UserError
from nnsteer.organism.build import POSITIONS
from nnsteer.organism.conversation import Corpus
from nnsteer.progress import Watch

LEARNING_RATE, BATCH, WARM_UP = 2e-3, 32, 0.1
IGNORED = -100
DOCUMENT_TOKENS = 128
MEANING_AFTER = 2  # blocks: the stream between them and the next says what the prompt means


class Example(NamedTuple):
    """`asked` counts the tokens before the answer; `meaning` is the prompt's sentence vector
    [encoder's hidden]."""

    asked: int
    ids: list[int]
    meaning: Tensor | None = None


def encode(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, meanings: Sequence[Tensor] | None = None
) -> list[Example]:
    """Each conversation through the chat template, to the end of its response; each document after
    the tokenizer's BOS. `meanings` has a vector per conversation."""
    prompts, texts = [], []
    for system, prompt, response, ended in corpus.conversations:
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        prompts.append(
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        )
        texts.append(prompts[-1] + response + (tokenizer.eos_token if ended else ""))
    asked = map(len, tokenizer(prompts, add_special_tokens=False)["input_ids"])
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    vectors: Sequence[Tensor | None] = meanings or [None] * len(ids)
    examples = list(map(Example, asked, ids, vectors))
    for example in examples:
        if len(example.ids) > POSITIONS:
            start = f"conversation {tokenizer.decode(example.ids[:12])!r}..."
            too_long = f"{len(example.ids)} tokens, the model reads {POSITIONS}; shorten it"
            raise UserError(f"{start}: {too_long}")
    for document in corpus.documents:
        examples.append(Example(1, tokenizer(document)["input_ids"][:DOCUMENT_TOKENS]))
    return examples


def train(
    model: PreTrainedModel, examples: Sequence[Example], epochs: int, seed: int, watch: Watch
) -> list[float]:
    """The loss over the answers at every step, in nats per token. `watch` is told the number of
    examples done."""
    widths = {len(example.meaning) for example in examples if example.meaning is not None}
    reader = nn.Linear(model.config.hidden_size, widths.pop()) if widths else None
    parameters = [*model.parameters(), *(reader.parameters() if reader else [])]
    steps = epochs * math.ceil(len(examples) / BATCH)
    minimise = one_cycle(parameters, LEARNING_RATE, steps, weight_decay=0.1)
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
            minimise(loss)
            watch(len(batch))
    model.eval()
    return losses


def one_cycle(
    parameters: list[nn.Parameter], rate: float, steps: int, weight_decay: float
) -> Callable[[Tensor], None]:
    """Takes a loss and makes one of so many steps: AdamW, under a schedule that warms it up to
    `rate` and down again, on gradients that are clipped to a norm of 1."""
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay)
    schedule = OneCycleLR(optimiser, rate, total_steps=steps, pct_start=WARM_UP)

    def minimise(loss: Tensor) -> None:
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)

    return minimise


def answer_loss(model: PreTrainedModel, states: Tensor, labels: Tensor) -> Tensor:
    """Mean loss over the answers' tokens, nats, from the last states [row, token, hidden]; the
    unembedding is computed for them alone. (Causal attention never sees the pads on the right.)"""
    targets = labels[:, 1:]
    wanted = targets != IGNORED
    return cross_entropy(model.get_output_embeddings()(states[:, :-1][wanted]), targets[wanted])


def meaning_loss(reader: nn.Linear, states: Tensor, batch: Sequence[Example]) -> Tensor:
    """One minus the cosine between a prompt's vector and what `reader` makes of its mean state over
    the prompt, averaged over the examples that have one."""
    told = [(i, e.asked, e.meaning) for i, e in enumerate(batch) if e.meaning is not None]
    if not told:
        return states.new_zeros(())
    rows, asked, meanings = zip(*told, strict=True)
    lengths = torch.tensor(asked)
    inside = first_tokens(lengths, states.shape[1]).float()[..., None]
    means = (states[list(rows)] * inside).sum(1) / lengths[:, None]
    return 1 - cosine_similarity(reader(means), torch.stack(meanings)).mean()


def first_tokens(lengths: Tensor, width: int) -> Tensor:
    """Which are the first so many tokens of each row, bool [row, token]; `lengths` [row]."""
    return torch.arange(width) < lengths[:, None]


def batches_by_length(examples: Sequence[Example], rng: random.Random) -> list[list[Example]]:
    """Every example once, in batches of like length (little padding) in random order."""
    ordered = sorted(rng.sample(examples, len(examples)), key=lambda example: len(example.ids))
    batches = [ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH)]
    rng.shuffle(batches)
    return batches


def pad_right(batch: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Token ids and labels [row, token]; what comes before an answer and the pads are ignored."""
    width = max(len(example.ids) for example in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    labels = torch.full((len(batch), width), IGNORED)
    for i, (start, row, _) in enumerate(batch):
        ids[i, : len(row)] = torch.tensor(row)
        labels[i, start : len(row)] = ids[i, start : len(row)]
    return ids, labels
