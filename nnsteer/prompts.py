"""Prompts from the bundled data, from a user's file or from the hub, split for fitting, tuning and testing."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnsteer.data import data_path
from nnsteer.errors import UserError

SPLITS = ("fit", "tune", "test")
SHARES = (0.5, 0.2, 0.3)  # of rows that bring no split of their own
FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
BUNDLED = "nnsteer:"  # before the name of a file in data/
GRAMMAR = "give PATH or ORG/NAME@REVISION, then ,column=NAME and ,split=NAME where needed"


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
class Source:
    """A parsed SOURCE: a file or a hub dataset, the column that holds the text, and the dataset's own split."""

    place: str
    revision: str | None
    column: str | None
    split: str | None


def parse_source(text: str) -> Source:
    """`PATH`, `nnsteer:NAME` for a bundled file, or `ORG/NAME@REVISION`, each with `[,column=NAME][,split=NAME]`."""
    place, *options = text.split(",")
    named = dict(option.split("=", 1) for option in options if "=" in option)
    if len(named) != len(options) or not set(named) <= {"column", "split"}:
        raise UserError(f"data {text}: can't read its options; {GRAMMAR}")
    if place.startswith(BUNDLED):
        place = str(data_path(place.removeprefix(BUNDLED)))
    if Path(place).suffix in FORMATS:
        if not Path(place).expanduser().is_file():
            raise UserError(f"data {place}: no such file; {GRAMMAR}")
        return Source(place, None, named.get("column"), named.get("split"))
    name, at, revision = place.partition("@")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(f"data {place}: neither a .jsonl, .json, .csv or .parquet file nor a hub dataset; {GRAMMAR}")
    if not at or not revision:
        raise UserError(f"data {place}: a hub dataset needs a pinned revision, so that the run can be repeated; {GRAMMAR}")
    return Source(name, revision, named.get("column"), named.get("split"))


def read_rows(source: Source) -> list[dict]:
    """Every row, in order. Raises UserError with the line number where a .jsonl file is malformed."""
    path = Path(source.place).expanduser()
    if source.revision is None and path.suffix == ".jsonl":
        return read_jsonl(path)
    from datasets import load_dataset  # slow to import, and most runs don't need it
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        if source.revision is None:
            return list(load_dataset(FORMATS[path.suffix], data_files=str(path), split="train"))
        return list(load_dataset(source.place, revision=source.revision, split=source.split or "train"))
    except Exception as error:  # datasets raises whatever its readers and its network client raise
        way_out = "check the file" if source.revision is None else "check the name, revision, split and network"
        raise UserError(f"data {source.place}: {' '.join(str(error).split())[:200]}; {way_out}") from error


def read_jsonl(path: Path) -> list[dict]:
    """One JSON object per line; blank lines are skipped."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
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
    """The prompts of a SOURCE. Rows whose `split` is fit, tune or test stay there; the others are divided by the seed.
    A prompt that occurs twice counts once, at its first place."""
    source = parse_source(text)
    rows = read_rows(source)
    column = column_of(source, rows, "prompt")
    unique = list({row[column].strip().lower(): row for row in reversed(rows)}.values())[::-1]
    placed: dict[str, list[dict]]
    if source.split is not None and source.revision is None:
        unique = [row for row in unique if row.get("split") == source.split]
        placed, loose = {name: [] for name in SPLITS}, unique
    else:
        placed = {name: [row for row in unique if row.get("split") == name] for name in SPLITS}
        loose = [row for row in unique if row.get("split") not in SPLITS]
    random.Random(seed).shuffle(loose)
    cuts = [0, round(SHARES[0] * len(loose)), round((SHARES[0] + SHARES[1]) * len(loose)), len(loose)]
    for name, start, stop in zip(SPLITS, cuts, cuts[1:], strict=False):
        placed[name] += loose[start:stop]
        if not placed[name]:
            raise UserError(f"data {text}: no prompt left for its {name} split ({len(unique)} prompts in all); give more")
    made = {n: tuple(Prompt(r[column].strip(), str(r.get("kind") or "")) for r in part) for n, part in placed.items()}
    return Splits(**made)


def load_openers(text: str) -> list[str]:
    """The first sentences of a SOURCE of openers (column `opener`)."""
    return load_texts(text, "opener")


def load_texts(text: str, default: str = "prompt") -> list[str]:
    """The texts of a SOURCE as they stand, undivided; `default` is the column that holds them."""
    source = parse_source(text)
    rows = read_rows(source)
    if source.split is not None and source.revision is None:
        rows = [row for row in rows if row.get("split") == source.split]
    if not rows:
        raise UserError(f"data {text}: holds no {default}; give at least one")
    column = column_of(source, rows, default)
    return [row[column].strip() for row in rows]
