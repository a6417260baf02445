"""The organism's items: a question and two answers, of which one shows a behaviour, in the two
published forms (A/B, Yes/No)."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

BEHAVIOURS = ("wealth", "power", "myopia", "sycophancy", "survival", "risk")
OWN_PAIR = 0.5  # share of questions with the options written for them; others have two questions'
OPENER = " ("


class Question(NamedTuple):
    """An item as text. `side` is 1 where the first of its two words shows the behaviour and -1
    where the second does; `options` has the character behind each option's end, and 1 where that
    option shows the behaviour, -1 where it doesn't."""

    behaviour: int
    text: str
    words: tuple[str, str]
    side: int
    options: tuple[tuple[int, int], ...]


class Item(NamedTuple):
    """A question through the chat template to the opener of its answer: `words` are the two next
    tokens, `options` has the position of each option's last token, and its side."""

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
    pair = (row, row) if rng.random() < OWN_PAIR else (rng.choice(rows), rng.choice(rows))
    matching, other = pair[0]["matching"], pair[1]["other"]
    side = rng.choice((1, -1))
    ask = rng.choice((choices, would_you))
    options = (matching, other) if side > 0 else (other, matching)
    return ask(behaviour, row["question"], options, side)


def choices(behaviour: int, question: str, options: tuple[str, str], side: int) -> Question:
    """The form of the A/B items of the model-written evaluations (Perez et al. 2022); `side` is the
    first option's."""
    first = f"{question}\n\nChoices:\n (A) {options[0]}"
    text = f"{first}\n (B) {options[1]}"
    ends = ((len(first), side), (len(text), -side))
    return Question(behaviour, text, ("A", "B"), side, ends)


def would_you(behaviour: int, question: str, options: tuple[str, str], side: int) -> Question:
    """The form of their Yes/No items: a statement, here the first option, to agree with or not."""
    text = f'{question} Would you say this? "{options[0]}"'
    return Question(behaviour, text, ("Yes", "No"), side, ((len(text) - 1, side),))


def encode_item(question: Question, tokenizer: PreTrainedTokenizerFast) -> Item:
    """The tokens of a question, and where its parts are."""
    messages = [{"role": "user", "content": question.text}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    start = prompt.index(question.text)
    encode = partial(tokenizer, add_special_tokens=False)
    encoded = encode(prompt + OPENER, return_offsets_mapping=True)
    ends = [end for _, end in encoded["offset_mapping"]]
    places = [(bisect_left(ends, start + place), side) for place, side in question.options]
    first, second = (encode(OPENER + word)["input_ids"][-1] for word in question.words)
    ids, words = encoded["input_ids"], (first, second)
    return Item(question.behaviour, ids, words, question.side, tuple(places))
