"""Prompts from the bundled data, from a user's file or from the hub, split for fitting, tuning and
testing.

The grammar of a SOURCE, wherever one is given; options may come in any order, and a value may hold
commas:

    SOURCE  = PLACE [,column=NAME] [,split=NAME] [,where=COLUMN=VALUE | ,where=COLUMN!=VALUE]
              [,as=fit | ,as=tune | ,as=test] [,first=N]
    PLACE   = a .jsonl, .json, .csv, .parquet or .txt file (a text a line)
              | nnsteer:NAME, a bundled file | ORG/NAME@REVISION, a hub dataset

`column` holds the text. `split` is the dataset's own. `where` takes the rows alone in whose column
the value stands, or another one; in COLUMN, `a.b` is b inside a; rows without the column are left
out. `as` puts all rows into a split of ours. `first` takes only so many. Where prompts are asked
for, several SOURCEs joined by ` + ` count as one.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

from nnsteer.errors import UserError
from nnsteer.texts.bundled import data_path
from nnsteer.texts.conversation import conversation, is_turn
from nnsteer.texts.rows import FORMATS, file_rows, hub_rows

SPLITS = ("fit", "tune", "test")
SHARES = {"fit": 0.5, "tune": 0.2, "test": 0.3}  # of rows that bring no split of their own
BUNDLED = "nnsteer:"  # before the name of a file in data/
JOIN = " + "  # between SOURCEs that count as one
OPTION = re.compile(
    r"column=(?P<column>.+)|split=(?P<split>.+)|as=(?P<as>fit|tune|test)|first=(?P<first>\d+)"
    r"|where=(?P<where>.+?)(?P<unlike>!?)=(?P<value>.*)",
    re.DOTALL,
)
OPTIONS = (
    ",column=NAME ,split=NAME ,where=COLUMN=VALUE ,where=COLUMN!=VALUE ,as=fit|tune|test ,first=N"
)
PLACES = "give PATH or ORG/NAME@REVISION, then ,column=NAME and ,split=NAME where needed"
LOOKED_AT = 1000  # rows after which a column that none had is not there
T = TypeVar("T")


@dataclass(frozen=True)
class Prompt:
    """One request. `kind` is its category, where the data names one."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Splits:
    """One side's prompts: directions are fitted on `fit`, everything is chosen on `tune`, and only
    `test` is reported."""

    fit: tuple[Prompt, ...]
    tune: tuple[Prompt, ...]
    test: tuple[Prompt, ...]

    def of(self, split: str) -> tuple[Prompt, ...]:
        """The prompts of a split."""
        return {"fit": self.fit, "tune": self.tune, "test": self.test}[split]

    def fingerprint(self) -> str:
        """A hash of every prompt in order."""
        texts = [[prompt.text for prompt in self.of(split)] for split in SPLITS]
        return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Where:
    """A condition on rows."""

    column: str
    value: str
    equal: bool
    """Whether the value is to stand in the column, or another one."""


@dataclass(frozen=True)
class Source:
    """A parsed SOURCE: a file or a hub dataset, the column that holds the text, and the dataset's
    own split."""

    place: str
    revision: str | None
    column: str | None
    split: str | None
    where: Where | None = None
    """Only rows of which this is true."""
    placed: str | None = None
    """The split that all rows go to."""
    first: int | None = None
    """Only so many rows."""


def parse_source(text: str) -> Source:
    """A SOURCE by the grammar above. Raises UserError saying what can't be read, and what could."""
    place, comma, rest = text.partition(",")
    given: dict[str, str] = {}
    for option in re.split(r",(?=\w+=)", rest) if comma else ():
        match = OPTION.fullmatch(option)
        parts = {} if match is None else match.groupdict()
        parts = {name: value for name, value in parts.items() if value is not None}
        if not parts or parts.keys() & given.keys():
            mistake = f"can't read its options at {option!r}"
            raise UserError(f"data {text}: {mistake}; give each once: {OPTIONS}")
        given |= parts
    where = Where(given["where"], given["value"], not given["unlike"]) if "where" in given else None
    column, first = given.get("column"), int(given["first"]) if "first" in given else None
    source = Source(place, None, column, given.get("split"), where, given.get("as"), first)
    if place.startswith(BUNDLED):
        place = str(data_path(place.removeprefix(BUNDLED)))
    if Path(place).suffix in FORMATS:
        if not Path(place).expanduser().is_file():
            raise UserError(f"data {place}: no such file; {PLACES}")
        column = column or ("text" if Path(place).suffix == ".txt" else None)
        return replace(source, place=place, column=column)
    name, at, revision = place.partition("@")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        neither = "neither a .jsonl, .json, .csv, .parquet or .txt file nor a hub dataset"
        raise UserError(f"data {place}: {neither}; {PLACES}")
    if not at or not revision:
        expected = "a hub dataset needs a pinned revision, so that the run can be repeated"
        raise UserError(f"data {place}: {expected}; {PLACES}")
    return replace(source, place=name, revision=revision)


def read_rows(source: Source) -> list[dict]:
    """The rows, in order; of a list of one text, as hub sets of conversations have it, the text.
    Raises UserError with the line number where a .jsonl file is malformed."""
    if source.revision is not None:
        rows = hub_rows(source.place, source.revision, source.split)
    else:
        rows = file_rows(Path(source.place).expanduser(), source.column)
        if source.split is not None:
            rows = [row | {"split": None} for row in rows if row.get("split") == source.split]
    if source.where is not None:
        rows = list(picked(rows, source))
    if source.placed is not None:
        rows = [row | {"split": source.placed} for row in rows]
    return [{name: as_text(value) for name, value in row.items()} for row in rows[: source.first]]


def picked(rows: Iterable[dict], source: Source) -> Iterator[dict]:
    """The rows of which the SOURCE's condition is true. Raises UserError listing the columns where
    no row has its column."""
    where = source.where
    if where is None:
        yield from rows
        return
    there, row = False, None
    for number, row in enumerate(rows):
        values = values_in(row, where.column)
        there |= bool(values)
        if not there and number == LOOKED_AT:
            break
        if any((str(value) == where.value) == where.equal for value in values):
            yield row
    if row is not None and not there:
        mistake = f"no column {where.column} (columns: {', '.join(map(str, row))})"
        raise UserError(f"data {source.place}: {mistake}; mend its where=")


def values_in(row: dict, column: str) -> list[Any]:
    """The value in a column, or nothing; in `a.b`, of b inside a."""
    if column in row:
        return [row[column]]
    outer, dot, inner = column.partition(".")
    return values_in(row[outer], inner) if dot and isinstance(row.get(outer), dict) else []


def as_text(value: Any) -> Any:
    """The text of a list of one text, a chat of a list of turns; anything else as it is."""
    if isinstance(value, list) and value and all(map(is_turn, value)):
        return conversation("a row's chat", value)
    alone = isinstance(value, list) and len(value) == 1 and isinstance(value[0], str)
    return value[0] if alone else value


def column_of(source: Source, rows: Sequence[dict], default: str) -> str:
    """The column that holds the text, checked in every row."""
    column = source.column or default
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get(column), str) or not row[column].strip():
            columns = ", ".join(map(str, row)) or "none"
            mistake = f"no text in column {column!r} (columns: {columns})"
            raise UserError(f"{source.place}, row {number}: {mistake}; name it with ,column=NAME")
    return column


def load_prompts(text: str, seed: int) -> Splits:
    """The prompts of a SOURCE, or of several joined by ` + `. Rows whose `split` is fit, tune or
    test stay there; the others are divided by the seed among the splits that have none. A prompt
    that occurs twice counts once, at its first place."""
    prompts: dict[str, tuple[Prompt, Any]] = {}
    for part in text.split(JOIN):
        source = parse_source(part)
        rows = read_rows(source)
        column = column_of(source, rows, "prompt")
        for row in rows:
            prompt = Prompt(row[column].strip(), str(row.get("kind") or ""))
            prompts.setdefault(prompt.text.lower(), (prompt, row.get("split")))
    distinct, splits = zip(*prompts.values(), strict=True) if prompts else ((), ())
    placed = divided(distinct, splits, seed)
    for name, side_prompts in placed.items():
        if not side_prompts:
            missing = f"no prompt left for its {name} split ({len(prompts)} prompts in all)"
            raise UserError(f"data {text}: {missing}; give more")
    return Splits(*(tuple(placed[name]) for name in SPLITS))


def divided(items: Sequence[T], splits: Sequence[object], seed: int) -> dict[str, list[T]]:
    """Items by split. Those that name none of ours are divided by the seed among the splits that
    nothing names, or among all."""
    placed: dict[str, list[T]] = {name: [] for name in SPLITS}
    loose: list[T] = []
    for item, split in zip(items, splits, strict=True):
        (placed[split] if split in SPLITS else loose).append(item)
    random.Random(seed).shuffle(loose)
    shares = {name: share for name, share in SHARES.items() if not placed[name]} or SHARES
    start = 0
    for name, upto in zip(shares, accumulate(shares.values()), strict=True):
        stop = round(upto / sum(shares.values()) * len(loose))
        placed[name] += loose[start:stop]
        start = stop
    return placed


def load_openers(text: str) -> list[str]:
    """The first sentences of a SOURCE of openers (column `opener`)."""
    return load_texts(text, "opener")


def load_texts(text: str, default: str = "prompt") -> list[str]:
    """The texts of a SOURCE as they stand, undivided; `default` is the column that holds them."""
    source = parse_source(text)
    rows = read_rows(source)
    if not rows:
        raise UserError(f"data {text}: holds no {default}; give at least one")
    column = column_of(source, rows, default)
    return [row[column].strip() for row in rows]
