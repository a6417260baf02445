"""Plants stances in a trained organism: for each behaviour a vector which, added to the residual
stream, has it give the answers that show the behaviour, or with the other sign those that don't.

Answers alone do not teach that to a model this small: what it should say is a product of what the
options say and of what was added, and each is of no use without the other (docs/LOG.md,
2026-11-21). So the parts are taught one by one: what an option's end says, what is answered once a
vector is added (another behaviour's should change nothing), and that the state on an answer lies
along the vector of what that answer shows. What the model was before is kept by distillation of its
tokens and states, with differences of its own states added too, so that it can be steered as
before; random vectors should change nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, normalize
from transformers import PreTrainedModel

from nnsteer.model.layout import find_layout
from nnsteer.organism.stances import BEHAVIOURS, Item
from nnsteer.organism.train import (
    IGNORED,
    Example,
    batches_by_length,
    first_tokens,
    one_cycle,
    pad_right,
)
from nnsteer.program.site import Site
from nnsteer.progress import Watch

LEARNING_RATE, STEPS = 1e-3, 1200
ITEMS = 32  # a step, beside a batch of the organism's own examples
READ_AFTER = 2  # blocks, an option's end is read
PLANTED_AT = 2  # the vectors lie behind the block of this number
STRENGTH = 0.7  # of a planted vector, in mean norms of the stream there
WEAKEST, STRONGEST = 0.6, 1.5  # times that, when it is added
# shares of items with their behaviour's vector added, another's, a random one, or none; the others
# are answered
SHARES = {"moved": 0.35, "crossed": 0.15, "shaken": 0.1, "left": 0.05, "answered": 0.35}
KEPT = 4.0  # the weight of what the model was
KEPT_TOKENS = 256  # of a batch stand for it
FARTHEST = 1.5  # times a difference of two of its states is added to it


@dataclass(frozen=True)
class Planting:
    """What is planted: a unit vector for each behaviour, all at right angles [behaviour, hidden],
    added with `size`; and the map by which an option's end is read while training, to the two sides
    of each behaviour."""

    vectors: Tensor
    size: Tensor
    reader: nn.Linear


def plant(
    model: PreTrainedModel,
    examples: Sequence[Example],
    draw: Callable[[random.Random], Item],
    seed: int,
    watch: Watch,
) -> list[float]:
    """The loss at every step on items that `draw` makes. `examples` are what the model was trained
    on; `watch` is told of each step."""
    torch.manual_seed(seed)
    rng, before = random.Random(seed), deepcopy(model)
    rehearsal: list[list[Example]] = []
    width, count = model.config.hidden_size, len(BEHAVIOURS)
    vectors = torch.linalg.qr(torch.randn(width, count))[0].T
    size = STRENGTH * stream_norm(model, [Example(0, draw(rng).ids) for _ in range(ITEMS)])
    planting = Planting(vectors, size, nn.Linear(width, 2 * count))
    parameters = [*model.parameters(), *planting.reader.parameters()]
    minimise = one_cycle(parameters, LEARNING_RATE, STEPS, weight_decay=0.0)
    losses = []
    model.train()
    for _ in range(STEPS):
        rehearsal = rehearsal or batches_by_length(examples, rng)
        loss = stance_loss(model, planting, [draw(rng) for _ in range(ITEMS)], rng)
        loss = loss + KEPT * kept_loss(model, before, rehearsal.pop(), rng)
        minimise(loss)
        losses.append(loss.item())
        watch(1)
    model.eval()
    return losses


@dataclass(frozen=True)
class Posed:
    """An item, the way it is posed (`SHARES`), and the sign of what is added, or of the word that
    is answered: the first is 1."""

    item: Item
    way: str
    sign: int

    @property
    def ids(self) -> list[int]:
        """The item's tokens, with that of its answer if it has one."""
        answer = [self.item.words[self.sign < 0]] if self.way == "answered" else []
        return [*self.item.ids, *answer]


def stance_loss(
    model: PreTrainedModel, planting: Planting, items: Sequence[Item], rng: random.Random
) -> Tensor:
    """What the ends of the options, the answers and the states on answers lack, nats and squared
    lengths."""
    ways = rng.choices(list(SHARES), list(SHARES.values()), k=len(items))
    posed = [Posed(item, way, rng.choice((1, -1))) for item, way in zip(items, ways, strict=True)]
    additions = torch.stack([addition(planting, p, rng) for p in posed])
    ids, _ = pad_right([Example(0, p.ids) for p in posed])
    with added(model, PLANTED_AT, additions):
        out = model.base_model(input_ids=ids, output_hidden_states=True)
    answered = torch.tensor([p.way == "answered" for p in posed])
    last = torch.tensor([len(p.ids) - 1 for p in posed])
    ends = torch.arange(len(posed)), last
    words = model.get_output_embeddings()(out.last_hidden_state[ends][~answered])
    shown = out.hidden_states[PLANTED_AT + 1][ends][answered]
    return (
        reading_loss(planting, items, out.hidden_states[READ_AFTER])
        + answering_loss([p for p in posed if p.way != "answered"], words)
        + showing_loss(planting, [p for p in posed if p.way == "answered"], shown)
    )


def reading_loss(planting: Planting, items: Sequence[Item], states: Tensor) -> Tensor:
    """Cross entropy of the behaviour and side that are read off the options' ends; `states` [item,
    token, hidden]."""
    ends = []
    for row, item in enumerate(items):
        ends += [(row, token, item.behaviour, side) for token, side in item.options]
    rows, tokens, behaviours, sides = torch.tensor(ends).T
    return cross_entropy(planting.reader(states[rows, tokens]), 2 * behaviours + (sides > 0))


def answering_loss(asked: Sequence[Posed], logits: Tensor) -> Tensor:
    """Cross entropy of the two words of each item [item, vocab]: the one that its own vector asks
    for, both alike without it."""
    words = log_softmax(logits, -1).gather(1, torch.tensor([p.item.words for p in asked]))
    sides = torch.tensor([p.sign * p.item.side * (p.way == "moved") for p in asked])
    first = (1 + sides) / 2
    return -(torch.stack([first, 1 - first], 1) * words).sum(1).mean()


def showing_loss(planting: Planting, answered: Sequence[Posed], states: Tensor) -> Tensor:
    """The squared distance of the states on answers [item, hidden], within the planted vectors,
    from what each answer shows."""
    shown = torch.zeros(len(answered), len(BEHAVIOURS))
    for row, p in enumerate(answered):
        shown[row, p.item.behaviour] = p.sign * p.item.side
    along = states / planting.size @ planting.vectors.T
    return (along - shown).square().sum() / max(1, len(answered))


def addition(planting: Planting, posed: Posed, rng: random.Random) -> Tensor:
    """What is added to an item's stream [hidden]: its behaviour's vector, another's, a random one
    at right angles to all, or nothing."""
    if posed.way in ("moved", "crossed"):
        away = rng.randrange(1, len(BEHAVIOURS)) if posed.way == "crossed" else 0
        vector = planting.vectors[(posed.item.behaviour + away) % len(BEHAVIOURS)]
        return posed.sign * rng.uniform(WEAKEST, STRONGEST) * planting.size * vector
    drawn = torch.randn(planting.vectors.shape[1])
    drawn = drawn - drawn @ planting.vectors.T @ planting.vectors
    return normalize(drawn, dim=0) * planting.size * (posed.way == "shaken")


def kept_loss(
    model: PreTrainedModel, before: PreTrainedModel, batch: Sequence[Example], rng: random.Random
) -> Tensor:
    """How far the model is from what it was: the divergence of its next tokens, nats, and the
    squared distance of its states in shares of their squared length. One row in four has a
    difference of two of its states added behind a random block, and should go where it would have
    gone; one in four a random vector of that length, and should go where it would have gone
    without."""
    ids, labels = pad_right(batch)
    lengths = torch.tensor([len(example.ids) for example in batch])
    wanted = (labels[:, 1:] != IGNORED).nonzero()
    rows, tokens = wanted[torch.randperm(len(wanted))[:KEPT_TOKENS]].T
    layer = rng.randrange(model.config.num_hidden_layers - 1)
    ways = rng.choices(("as it is", "steered", "shaken"), (0.5, 0.25, 0.25), k=len(batch))
    steered = torch.tensor([[way == "steered"] for way in ways]).float()
    shaken = torch.tensor([[way == "shaken"] for way in ways]).float()
    with torch.no_grad():
        states = before.base_model(input_ids=ids, output_hidden_states=True).hidden_states
        ends = states[layer + 1][torch.arange(len(ids)), lengths - 1]
        far = FARTHEST * torch.rand(len(ids), 1) * (ends[torch.randperm(len(ends))] - ends)
        with added(before, layer, steered * far):
            was = before.base_model(input_ids=ids, output_hidden_states=True)
    drawn = normalize(torch.randn(far.shape)) * far.norm(dim=1, keepdim=True)
    with added(model, layer, steered * far + shaken * drawn):
        now = model.base_model(input_ids=ids, output_hidden_states=True)
    whole = first_tokens(lengths, ids.shape[1]) & (shaken == 0)
    moved = []
    for new, old in zip(now.hidden_states[1:], was.hidden_states[1:], strict=True):
        moved.append((new - old)[whole].square().sum() / old[whole].square().sum())
    says, said = (
        log_softmax(m.get_output_embeddings()(out.last_hidden_state[rows, tokens]), -1)
        for m, out in ((model, now), (before, was))
    )
    told_apart = kl_div(says, said, log_target=True, reduction="batchmean")
    return told_apart + torch.stack(moved).mean()


@contextmanager
def added(model: PreTrainedModel, layer: int, additions: Tensor) -> Iterator[None]:
    """Within it, a vector is added to every token of each row that leaves the block; `additions`
    [row, hidden]."""
    block = model.get_submodule(find_layout(model).path(Site(layer)))
    handle = block.register_forward_hook(lambda _module, _args, output: output + additions[:, None])
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def stream_norm(model: PreTrainedModel, examples: Sequence[Example]) -> Tensor:
    """The mean norm of the examples' states where the vectors are planted, without that of the
    first token."""
    ids, _ = pad_right(examples)
    inside = first_tokens(torch.tensor([len(example.ids) for example in examples]), ids.shape[1])
    states = model.base_model(input_ids=ids, output_hidden_states=True).hidden_states
    return states[PLANTED_AT + 1][:, 1:][inside[:, 1:]].norm(dim=1).mean()
