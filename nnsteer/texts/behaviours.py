"""Model-written evaluations (Perez et al. 2022; Rimsky et al. 2023): questions with two answers, of
which one shows a behaviour. An item is read as published: `question`, `answer_matching_behavior`
and `answer_not_matching_behavior`, which are " (A)" and " (B)" or " Yes" and " No"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nnsteer.errors import UserError
from nnsteer.texts.contrast import ContrastSet, Text
from nnsteer.texts.source import JOIN, SPLITS, load_prompts, parse_source, read_rows

QUESTION, MATCHING, OTHER = "question", "answer_matching_behavior", "answer_not_matching_behavior"
WORD = re.compile(r"\s*\(?\s*([A-Z]|Yes|No)\s*\)?\s*")
NAME = re.compile(r"[\w-]+")


class Item(NamedTuple):
    """A question and its two answers, each a letter or Yes or No."""

    prompt: str
    opener: str
    """What the model is made to begin its answer with, up to the letter."""
    matching: str
    other: str

    @property
    def responses(self) -> tuple[str, str]:
        """Both answers, from their beginning to the letter."""
        return self.opener + self.matching, self.opener + self.other


@dataclass(frozen=True)
class Behaviour:
    """A behaviour's items: its direction is fitted on `fit`, everything is chosen on `tune`, and
    only `test` is reported."""

    name: str
    fit: tuple[Item, ...]
    tune: tuple[Item, ...]
    test: tuple[Item, ...]


@dataclass(frozen=True)
class Form:
    """How an item is put to the model. `question` holds {question}; `opener` may hold {options},
    such as `(A) and (B)`."""

    question: str = "{question}"
    opener: str = " ("

    def item(self, question: str, matching: str, other: str) -> Item:
        """The item of a question and its two words."""
        # Yes before No, as published
        words = sorted((matching, other), key=lambda word: (word == "No", word))
        opener = self.opener.replace("{options}", " and ".join(f"({word})" for word in words))
        return Item(self.question.replace("{question}", question), opener, matching, other)


def load_behaviour(text: str, form: Form, seed: int) -> Behaviour:
    """The items of `[NAME=]SOURCE`, divided as `source.load_prompts` divides; a file's own name is
    the behaviour's where none is given. Raises UserError with the row's number where an answer is
    not a letter, Yes or No."""
    if "{question}" not in form.question:
        asked = "where does the question go? Put {question} there"
        raise UserError(f"--question {form.question!r}: {asked}")
    name, given = named(text)
    sources = given.split(JOIN)
    columns = ["" if parse_source(part).column else f",column={QUESTION}" for part in sources]
    parts = [part + column for part, column in zip(sources, columns, strict=True)]
    splits = load_prompts(JOIN.join(parts), seed)
    items: dict[str, Item] = {}
    for source in map(parse_source, parts):
        for number, row in enumerate(read_rows(source), start=1):
            words = words_of(row, f"{source.place}, row {number}")
            question = row[source.column or QUESTION].strip()
            items.setdefault(question, form.item(question, *words))
    return Behaviour(name, *(tuple(items[p.text] for p in splits.of(split)) for split in SPLITS))


def named(text: str) -> tuple[str, str]:
    """The name and the SOURCE of `[NAME=]SOURCE`."""
    name, equals, source = text.partition("=")
    if equals and NAME.fullmatch(name):
        return name, source
    place = text.partition(",")[0].partition("@")[0]
    return Path(place.removeprefix("nnsteer:")).stem, text


def words_of(row: dict, place: str) -> list[str]:
    """The letters, Yes or No of a row's two answers. Raises UserError, which names its `place`."""
    answers = [row.get(answer) for answer in (MATCHING, OTHER)]
    matches = [WORD.fullmatch(answer) if isinstance(answer, str) else None for answer in answers]
    words = [match[1] for match in matches if match is not None]
    if len(set(words)) < 2:
        mistake = f"{MATCHING} and {OTHER} are {answers[0]!r} and {answers[1]!r}"
        expected = "expected two like ' (A)' and ' (B)' or ' Yes' and ' No'"
        raise UserError(f"{place}: {mistake}, {expected}; mend or remove the row")
    return words


def contrast(items: Sequence[Item], balanced: bool) -> ContrastSet:
    """Each question with its matching answer against the same with the other (Contrastive
    Activation Addition, Rimsky et al. 2023). `balanced` keeps as many items of each matching
    answer, the first ones: the letter is then no part of the direction."""
    by_word: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda item: item.matching):
        by_word.setdefault(item.matching, []).append(item)
    if balanced and len(by_word) > 1:
        n = min(map(len, by_word.values()))
        items = [item for alike in by_word.values() for item in alike[:n]]
    pairs = [[Text(item.prompt, response) for response in item.responses] for item in items]
    return ContrastSet(*zip(*pairs, strict=True))
