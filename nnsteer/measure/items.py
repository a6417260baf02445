"""Two-answer items and general text under programs, to rows on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from typing import NamedTuple

from nnsteer.folder import Folder
from nnsteer.measure.choice import Tally, replies
from nnsteer.measure.skill import predicted, top_k
from nnsteer.model.runner import Runner
from nnsteer.program.program import Program
from nnsteer.progress import bar
from nnsteer.texts.behaviours import Item
from nnsteer.texts.source import Prompt

KEY, TEXT_KEY = ("variant", "behaviour", "prompt"), ("variant", "text")
"""The columns that name a row in a file of answers, and in one of general text."""


class Asked(NamedTuple):
    """One item under one program."""

    variant: str
    behaviour: str
    item: Item
    program: Program
    control: bool = False


@dataclass(frozen=True)
class Row:
    """One line of a file of answers."""

    variant: str
    behaviour: str
    prompt: str
    matching: str
    """The letter, Yes or No that shows the behaviour."""
    other: str
    said: str
    """The one that the model wrote, or another token's text: a faulty answer."""
    margin: float
    """The matching answer's logit minus the other's."""
    control: bool = False
    """Whether a random direction steered, which belongs to no family of tests."""


def ask(folder: Folder, name: str, runner: Runner, asked: Sequence[Asked]) -> list[Row]:
    """The row of each item, in order, from the folder's file `name`; what is not there yet is asked and appended batch by batch,
    so that a run killed here repeats nothing."""
    have = {key(row) for row in folder.read_lines(name)}
    named = {(one.variant, one.behaviour, one.item.prompt): one for one in asked}
    missing = [one for place, one in named.items() if place not in have]
    with bar(name, len(asked)) as advance:
        advance(len(asked) - len(missing))
        for start in range(0, len(missing), runner.batch_size):
            rows = answered(runner, missing[start : start + runner.batch_size])
            folder.append(name, map(asdict, rows))
            advance(len(rows))
    there = {key(row): Row(**row) for row in folder.read_lines(name, KEY)}
    return [there[one.variant, one.behaviour, one.item.prompt] for one in asked]


def key(row: dict) -> tuple[str, str, str]:
    """What a row is the answer to."""
    return row["variant"], row["behaviour"], row["prompt"]


def answered(runner: Runner, asked: Sequence[Asked]) -> list[Row]:
    """One greedy token after each item's opener."""
    items, programs = [one.item for one in asked], [one.program for one in asked]
    found = replies(runner, [item.prompt for item in items], [item.responses for item in items], programs)
    rows = []
    for one, item, reply in zip(asked, items, found, strict=True):
        said = dict(zip(item.responses, (item.matching, item.other), strict=True)).get(reply.chosen or "", reply.token)
        rows.append(Row(one.variant, one.behaviour, item.prompt, item.matching, item.other, said, reply.margin, one.control))
    return rows


def counted(rows: Sequence[Row]) -> Tally:
    """Matches, faulty answers and the commonest answer among the rows."""
    given = [row.said for row in rows if row.said in (row.matching, row.other)]
    matches = sum(row.said == row.matching for row in rows)
    return Tally(len(rows), matches, len(rows) - len(given), max(Counter(given).values(), default=0))


def predict(folder: Folder, name: str, runner: Runner, variants: Mapping[str, Sequence[Program]], texts: Sequence[str]) -> None:
    """The share of each text's tokens that the steered model ranks first, variant by variant into the folder's file `name`; what
    steering takes of it is the alignment tax. A variant of several programs has them in turn."""
    prompts = [Prompt(text) for text in texts]
    have = {(row["variant"], row["text"]) for row in folder.read_lines(name)}
    tokens = predicted(runner, prompts)
    with bar(name, len(variants) * len(texts)) as advance:
        for variant, programs in variants.items():
            lacking = [i for i in range(len(texts)) if (variant, i) not in have]
            if lacking:
                hits = top_k().values(runner, list(islice(cycle(programs), len(texts))), prompts)
                folder.append(name, [{"variant": variant, "text": i, "top1": hits[i], "tokens": tokens[i]} for i in lacking])
            advance(len(texts))
