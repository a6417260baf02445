"""Prompts from the bundled data, from a user's file or from the hub, split for fitting, tuning and testing.

The grammar of a SOURCE, wherever one is given; options may come in any order, and a value may hold commas:

    SOURCE  = PLACE [,column=NAME] [,split=NAME] [,where=COLUMN=VALUE | ,where=COLUMN!=VALUE]
              [,as=fit | ,as=tune | ,as=test] [,first=N]
    PLACE   = a .jsonl, .json, .csv, .parquet or .txt file (a text a line) | nnsteer:NAME, a bundled file
              | ORG/NAME@REVISION, a hub dataset

`column` holds the text. `split` is the dataset's own. `where` takes the rows alone in whose column the value stands, or another
one; in COLUMN, `a.b` is b inside a; rows without the column are left out. `as` puts all rows into a split of ours. `first` takes
only so many. Where prompts are asked for, several SOURCEs joined by ` + ` count as one.
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

SPLITS = ("fit", "tune", "test")
SHARES = (0.5, 0.2, 0.3)  # of rows that bring no split of their own
FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}
BUNDLED = "nnsteer:"  # before the name of a file in data/
T = TypeVar("T")
JOIN = " + "  # between SOURCEs that count as one
OPTIONS = {
    "column": r"(.+)",
    "split": r"(.+)",
    "where": r"(.+?)(!?)=(.*)",
    "as": rf"({'|'.join(SPLITS)})",
    "first": r"(\d+)",
}  # and what may stand behind them
KNOWN = ",column=NAME ,split=NAME ,where=COLUMN=VALUE ,where=COLUMN!=VALUE ,as=fit|tune|test ,first=N"
LOOKED_AT = 1000  # rows after which a column that none had is not there
GRAMMAR = "give PATH or ORG/NAME@REVISION, then ,column=NAME and ,split=NAME where needed"
ACCESS = "ask for access on its page, https://huggingface.co/datasets/{name}, then log in with `hf auth login`"


@dataclass(frozen=True)
class Prompt:
    """One request. `kind` is its category, where the data names one."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Splits:
    """One side's prompts: directions are fitted on `fit`, everything is chosen on `tune`, and only `test` is reported."""

    fit: tuple[Prompt, ...]
    tune: tuple[Prompt, ...]
    test: tuple[Prompt, ...]

    def fingerprint(self) -> str:
        """A hash of every prompt in order."""
        texts = [[p.text for p in split] for split in (self.fit, self.tune, self.test)]
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
    """A parsed SOURCE: a file or a hub dataset, the column that holds the text, and the dataset's own split."""

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
    given: dict[str, tuple[str, ...]] = {}
    for option in re.split(r",(?=\w+=)", rest) if comma else ():
        name, equals, value = option.partition("=")
        found = re.fullmatch(OPTIONS[name], value, re.DOTALL) if equals and name in OPTIONS else None
        if found is None or name in given:
            raise UserError(f"data {text}: can't read its options at {option!r}; give each once: {KNOWN}")
        given[name] = found.groups()
    one = {name: values[0] for name, values in given.items()}
    where = Where(one["where"], given["where"][2], not given["where"][1]) if "where" in given else None
    first = int(one["first"]) if "first" in one else None
    source = Source(place, None, one.get("column"), one.get("split"), where, one.get("as"), first)
    if place.startswith(BUNDLED):
        place = str(data_path(place.removeprefix(BUNDLED)))
    if Path(place).suffix in FORMATS:
        if not Path(place).expanduser().is_file():
            raise UserError(f"data {place}: no such file; {GRAMMAR}")
        return replace(source, place=place, column=source.column or ("text" if Path(place).suffix == ".txt" else None))
    name, at, revision = place.partition("@")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(f"data {place}: neither a .jsonl, .json, .csv, .parquet or .txt file nor a hub dataset; {GRAMMAR}")
    if not at or not revision:
        raise UserError(f"data {place}: a hub dataset needs a pinned revision, so that the run can be repeated; {GRAMMAR}")
    return replace(source, place=name, revision=revision)


def read_rows(source: Source) -> list[dict]:
    """The rows, in order; of a list of one text, as hub sets of conversations have it, the text. Raises UserError with the line
    number where a .jsonl file is malformed."""
    rows = all_rows(source)
    if source.split is not None and source.revision is None:
        rows = [row | {"split": None} for row in rows if row.get("split") == source.split]
    if source.where is not None:
        rows = list(picked(rows, source))
    if source.placed is not None:
        rows = [row | {"split": source.placed} for row in rows]
    return [{name: single(value) for name, value in row.items()} for row in rows[: source.first]]


def picked(rows: Iterable[dict], source: Source) -> Iterator[dict]:
    """The rows of which the SOURCE's condition is true. Raises UserError listing the columns where no row has its column."""
    known, row, where = False, None, source.where
    for number, row in enumerate(rows):
        values = [] if where is None else found(row, where.column)
        known |= bool(values) or where is None
        if not known and number == LOOKED_AT:
            break
        if where is None or any((str(value) == where.value) == where.equal for value in values):
            yield row
    if where is not None and row is not None and not known:
        raise UserError(f"data {source.place}: no column {where.column} (columns: {', '.join(map(str, row))}); mend its where=")


def found(row: dict, column: str) -> list[Any]:
    """The value in a column, or nothing; in `a.b`, of b inside a."""
    if column in row:
        return [row[column]]
    outer, dot, inner = column.partition(".")
    return found(row[outer], inner) if dot and isinstance(row.get(outer), dict) else []


def single(value: Any) -> Any:
    """The text of a list of one text; anything else as it is."""
    return value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str) else value


def all_rows(source: Source) -> list[dict]:
    """What the file or the hub dataset holds."""
    path = Path(source.place).expanduser()
    if source.revision is None and path.suffix == ".jsonl":
        return read_jsonl(path)
    if source.revision is None and path.suffix == ".txt":
        return [{"text": line} for line in utf8(path).split("\n") if line.strip()]
    if source.revision is None and path.suffix == ".json" and utf8(path).lstrip().startswith("{"):
        return read_object(path, source)
    from datasets import load_dataset  # slow to import, and most runs don't need it
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        if source.revision is None:
            return list(load_dataset(FORMATS[path.suffix], data_files=str(path), split="train"))
        return list(load_dataset(source.place, revision=source.revision, split=source.split or "train"))
    except Exception as error:  # datasets raises whatever its readers and its network client raise
        gated = source.revision is not None and "gated" in str(error)
        here = "check the file" if source.revision is None else "check the name, revision, split and network"
        way_out = ACCESS.format(name=source.place) if gated else here
        raise UserError(f"data {source.place}: {' '.join(str(error).split())[:200]}; {way_out}") from error


def read_object(path: Path, source: Source) -> list[dict]:
    """A .json file that is one object, as CAST's data are published: lists of rows by split (`train`, `test`), of which the test
    rows stay in the test split; or lists of texts by column."""
    try:
        held = json.loads(utf8(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON ({error.msg}, line {error.lineno}); mend it") from error
    if source.column in held and all(isinstance(text, str) for text in held[source.column]):
        return [{source.column: text} for text in held[source.column]]
    if not all(isinstance(part, list) and all(isinstance(row, dict) for row in part) for part in held.values()):
        raise UserError(
            f"{path}: expected lists of rows by split, or of texts by column with ,column=NAME; it has {', '.join(held)}"
        )
    return [row | {"split": name} for name, part in held.items() for row in part]


def utf8(path: Path) -> str:
    """What stands in a file."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, byte {error.start}: not UTF-8; save the file as UTF-8") from error


def read_jsonl(path: Path) -> list[dict]:
    """One JSON object per line; blank lines are skipped."""
    rows = []
    for number, line in enumerate(utf8(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error.msg}, column {error.colno}); mend or remove it") from error
        if not isinstance(row, dict):
            raise UserError(f'{path}, line {number}: expected an object like {{"prompt": "..."}}, got {line[:40]}')
        rows.append(row)
    return rows


def column_of(source: Source, rows: Sequence[dict], default: str) -> str:
    """The column that holds the text, checked in every row."""
    column = source.column or default
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get(column), str) or not row[column].strip():
            there = ", ".join(map(str, row)) or "none"
            raise UserError(
                f"{source.place}, row {number}: no text in column {column!r} (columns: {there}); name it with ,column=NAME"
            )
    return column


def load_prompts(text: str, seed: int) -> Splits:
    """The prompts of a SOURCE, or of several joined by ` + `. Rows whose `split` is fit, tune or test stay there; the others are
    divided by the seed among the splits that have none. A prompt that occurs twice counts once, at its first place."""
    unique: dict[str, dict] = {}
    for part in text.split(JOIN):
        source = parse_source(part)
        rows = read_rows(source)
        column = column_of(source, rows, "prompt")
        for row in rows:
            mine = {"prompt": row[column].strip(), "kind": str(row.get("kind") or ""), "split": row.get("split")}
            unique.setdefault(mine["prompt"].lower(), mine)
    placed = divided(list(unique.values()), [row["split"] for row in unique.values()], seed)
    for name, own in placed.items():
        if not own:
            raise UserError(f"data {text}: no prompt left for its {name} split ({len(unique)} prompts in all); give more")
    return Splits(**{name: tuple(Prompt(row["prompt"], row["kind"]) for row in part) for name, part in placed.items()})


def divided(items: Sequence[T], splits: Sequence[object], seed: int) -> dict[str, list[T]]:
    """Items by split. Those that name none of ours are divided by the seed among the splits that nothing names, or among all."""
    placed = {name: [item for item, own in zip(items, splits, strict=True) if own == name] for name in SPLITS}
    loose = [item for item, own in zip(items, splits, strict=True) if own not in SPLITS]
    random.Random(seed).shuffle(loose)
    every = dict(zip(SPLITS, SHARES, strict=True))
    shares = {name: share for name, share in every.items() if not placed[name]} or every
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
