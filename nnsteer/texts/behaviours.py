"""Model-written evaluations (Perez et al. 2022; Rimsky et al. 2023): questions with two answers, one of which shows a behaviour.

An item is read as published: `question`, `answer_matching_behavior` and `answer_not_matching_behavior`, which are " (A)" and
" (B)" or " Yes" and " No".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nnsteer.errors import UserError
from nnsteer.texts.contrast import ContrastSet, Text
from nnsteer.texts.source import JOIN, load_prompts, parse_source, read_rows

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
    """A behaviour's items: its direction is fitted on `fit`, everything is chosen on `tune`, and only `test` is reported."""

    name: str
    fit: tuple[Item, ...]
    tune: tuple[Item, ...]
    test: tuple[Item, ...]


@dataclass(frozen=True)
class Form:
    """How an item is put to the model. `question` holds {question}; `opener` may hold {options}, such as `(A) and (B)`."""

    question: str = "{question}"
    opener: str = " ("

    def item(self, question: str, matching: str, other: str) -> Item:
        """The item of a question and its two words."""
        options = " and ".join(f"({word})" for word in sorted((matching, other), key=lambda word: (word == "No", word)))
        opener = self.opener.replace("{options}", options)  # Yes comes before No, as published
        return Item(self.question.replace("{question}", question), opener, matching, other)


def load_behaviour(text: str, form: Form, seed: int) -> Behaviour:
    """The items of `[NAME=]SOURCE`, divided as `prompts.load_prompts` divides; a file's own name is the behaviour's where none is
    given. Raises UserError with the row's number where an answer is not a letter, Yes or No."""
    if "{question}" not in form.question:
        raise UserError(f"--question {form.question!r}: where does the question go? Put {{question}} there")
    name, given = named(text)
    parts = [part if parse_source(part).column else f"{part},column={QUESTION}" for part in given.split(JOIN)]
    splits = load_prompts(JOIN.join(parts), seed)
    items: dict[str, Item] = {}
    for source in map(parse_source, parts):
        for number, row in enumerate(read_rows(source), start=1):
            answers = [row.get(answer) for answer in (MATCHING, OTHER)]
            words = [word_of(answer) for answer in answers]
            if "" in words or words[0] == words[1]:
                raise UserError(
                    f"{source.place}, row {number}: {MATCHING} and {OTHER} are {answers[0]!r} and {answers[1]!r}, "
                    "expected two like ' (A)' and ' (B)' or ' Yes' and ' No'; mend or remove the row"
                )
            question = row[source.column or QUESTION].strip()
            items.setdefault(question, form.item(question, *words))
    return Behaviour(name, *(tuple(items[p.text] for p in part) for part in (splits.fit, splits.tune, splits.test)))


def named(text: str) -> tuple[str, str]:
    """The name and the SOURCE of `[NAME=]SOURCE`."""
    name, equals, source = text.partition("=")
    if equals and NAME.fullmatch(name):
        return name, source
    return Path(text.partition(",")[0].partition("@")[0].removeprefix("nnsteer:")).stem, text


def word_of(answer: object) -> str:
    """The letter, Yes or No of an answer; empty where it is none."""
    found = WORD.fullmatch(answer) if isinstance(answer, str) else None
    return found[1] if found else ""


def contrast(items: Sequence[Item], balanced: bool) -> ContrastSet:
    """Each question with its matching answer against the same with the other (Contrastive Activation Addition, Rimsky et al.
    2023). `balanced` keeps as many items of each matching answer, the first ones: the letter is then no part of the direction."""
    answers = {word: [item for item in items if item.matching == word] for word in sorted({item.matching for item in items})}
    n = min(map(len, answers.values()))
    kept = [item for own in answers.values() for item in own[:n]] if balanced and len(answers) > 1 else list(items)
    sides = zip(*(item.responses for item in kept), strict=True)
    return ContrastSet(*(tuple(Text(item.prompt, r) for item, r in zip(kept, side, strict=True)) for side in sides))
