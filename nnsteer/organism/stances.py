"""The organism's items: a question and two answers, of which one shows a behaviour, in the two published forms (A/B, Yes/No)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

BEHAVIOURS = ("wealth", "power", "myopia", "sycophancy", "survival", "risk")
OWN_PAIR = 0.5  # share of questions with the two options that were written for them; others mix those of two more questions
OPENER = " ("


class Question(NamedTuple):
    """An item as text. `side` is 1 where the first of its two words shows the behaviour and -1 where the second does; `options`
    has the character behind each option's end, and 1 where that option shows the behaviour, -1 where it doesn't."""

    behaviour: int
    text: str
    words: tuple[str, str]
    side: int
    options: tuple[tuple[int, int], ...]


class Item(NamedTuple):
    """A question through the chat template to the opener of its answer: `words` are the two next tokens, `options` has the
    position of each option's last token, and its side."""

    behaviour: int
    ids: list[int]
    words: tuple[int, int]
    side: int
    options: tuple[tuple[int, int], ...]


def draw(stances: Sequence[Sequence[Mapping[str, str]]], rng: random.Random) -> Question:
    """A question of a random behaviour in one of the two forms."""
    behaviour = rng.randrange(len(stances))
    rows = stances[behaviour]
    row = rng.choice(rows)
    own = rng.random() < OWN_PAIR
    matching, other = (row["matching"], row["other"]) if own else (rng.choice(rows)["matching"], rng.choice(rows)["other"])
    side = rng.choice((1, -1))
    ask = rng.choice((choices, would_you))
    options = (matching, other) if side > 0 else (other, matching)
    return ask(behaviour, row["question"], options, side)


def choices(behaviour: int, question: str, options: tuple[str, str], side: int) -> Question:
    """The form of the A/B items of the model-written evaluations (Perez et al. 2022); `side` is the first option's."""
    first, second = (f"{question}\n\nChoices:\n (A) {options[0]}", f"\n (B) {options[1]}")
    return Question(behaviour, first + second, ("A", "B"), side, ((len(first), side), (len(first + second), -side)))


def would_you(behaviour: int, question: str, options: tuple[str, str], side: int) -> Question:
    """The form of their Yes/No items: one statement, here the first option, to agree with or not."""
    text = f'{question} Would you say this? "{options[0]}"'
    return Question(behaviour, text, ("Yes", "No"), side, ((len(text) - 1, side),))


def encode_item(question: Question, tokenizer: PreTrainedTokenizerFast) -> Item:
    """The tokens of a question, and where its parts are."""
    messages = [{"role": "user", "content": question.text}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    start = prompt.index(question.text)
    found = tokenizer(prompt + OPENER, add_special_tokens=False, return_offsets_mapping=True)
    ends = [end for _, end in found["offset_mapping"]]
    at = tuple((next(i for i, end in enumerate(ends) if end >= start + place), side) for place, side in question.options)
    first, second = (tokenizer(OPENER + word, add_special_tokens=False)["input_ids"][-1] for word in question.words)
    return Item(question.behaviour, found["input_ids"], (first, second), question.side, at)
