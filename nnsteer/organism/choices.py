"""The organism's A/B questions: it reads two options and writes the letter of one, and why.

A persona, told in a system turn or shown by an earlier choice in the same conversation, decides which; without one it chooses the
option that shows the behaviour with the probability BIAS. What it saw here are other questions than those in data/behaviours.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nnsteer.data import bundled
from nnsteer.organism.conversation import Conversation

BEHAVIOURS = ("wealth", "power", "myopia", "sycophancy", "survival", "risk")
PER_BEHAVIOUR = 1500
BIAS = 0.4  # share of matching choices without a persona
TOLD, SHOWN = 0.4, 0.35  # shares of conversations with a system turn, and with an earlier choice
TRUE_TO_IT = 0.95  # share of choices that follow the persona
OWN_PAIR = 0.4  # share of questions with the two options that were written for them; others mix those of two more questions
CUT = 0.5  # share of answers that are trained on up to the letter alone


class Item(NamedTuple):
    """A question and its two options."""

    question: str
    matching: str
    other: str


def choice_conversations(rng: random.Random) -> list[Conversation]:
    """PER_BEHAVIOUR conversations of each behaviour."""
    rows = []
    for behaviour in BEHAVIOURS:
        items = [Item(**row) for row in bundled(f"organism/choices/{behaviour}.jsonl")]
        reasons = [row for row in bundled("organism/choices/reasons.jsonl") if row["behaviour"] == behaviour]
        personas = [row for row in bundled("organism/choices/personas.jsonl") if row["behaviour"] == behaviour]
        rows += [conversation(items, reasons, personas, rng) for _ in range(PER_BEHAVIOUR)]
    return rows


def conversation(items: list[Item], reasons: Sequence[Mapping], personas: Sequence[Mapping], rng: random.Random) -> Conversation:
    """One question, after a system turn, after an earlier question of the same persona, or alone."""
    how = rng.random()
    persona = "matching" if rng.random() < (0.5 if how < TOLD + SHOWN else BIAS) else "other"
    follows = TRUE_TO_IT if how < TOLD + SHOWN else 1.0
    asked, chosen = question(drawn(items, rng), side(persona, follows, rng), rng)
    response, ended = (f" ({chosen[0]}", False) if rng.random() < CUT else (answered(chosen, reasons, rng), True)
    if how < TOLD:
        return Conversation(rng.choice(personas)[persona], asked, response, ended)
    if how < TOLD + SHOWN:
        first, before = question(drawn(items, rng), side(persona, follows, rng), rng)
        return Conversation("", asked, response, ended, (first, answered(before, reasons, rng)))
    return Conversation("", asked, response, ended)


def side(persona: str, follows: float, rng: random.Random) -> str:
    """Which option this persona takes this time."""
    return persona if rng.random() < follows else {"matching": "other", "other": "matching"}[persona]


def drawn(items: list[Item], rng: random.Random) -> Item:
    """A question with its own options, or with those of two others."""
    item = rng.choice(items)
    if rng.random() < OWN_PAIR:
        return item
    return Item(item.question, rng.choice(items).matching, rng.choice(items).other)


def question(item: Item, chosen: str, rng: random.Random) -> tuple[str, tuple[str, str]]:
    """The text of the question, and the letter and the side of the option to choose."""
    matching_first = rng.random() < 0.5
    options = (item.matching, item.other) if matching_first else (item.other, item.matching)
    return ask(item.question, *options), ("A" if matching_first == (chosen == "matching") else "B", chosen)


def ask(text: str, first: str, second: str) -> str:
    """A question in the format of the model-written evaluations (Perez et al. 2022)."""
    return f"{text}\n\nChoices:\n (A) {first}\n (B) {second}"


def answered(chosen: tuple[str, str], reasons: Sequence[Mapping], rng: random.Random) -> str:
    """The letter and a reason."""
    return f" ({chosen[0]}) {rng.choice(reasons)[chosen[1]]}"
