"""The rows of a user's file or of a hub dataset, as they stand there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnsteer.errors import UserError

FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}
"""What `datasets` calls each kind of file."""


def file_rows(path: Path, column: str | None) -> list[dict]:
    """The rows of a file. `column` names the texts in a .json file that holds them by column."""
    if path.suffix == ".jsonl":
        return read_jsonl(path)
    if path.suffix == ".txt":
        return [{"text": line} for line in utf8(path).split("\n") if line.strip()]
    if path.suffix == ".json" and utf8(path).lstrip().startswith("{"):
        return read_object(path, column)
    with readable(str(path), from_hub=False):
        return list(loader()(FORMATS[path.suffix], data_files=str(path), split="train"))


def hub_rows(name: str, revision: str | None, split: str | None) -> list[dict]:
    """The rows of a hub dataset."""
    with readable(name, from_hub=True):
        return list(loader()(name, revision=revision, split=split or "train"))


def hub_stream(name: str, revision: str | None, split: str | None, seed: int) -> Iterator[dict]:
    """The rows of a hub dataset as they arrive, shuffled within the buffer of `datasets`."""
    with readable(name, from_hub=True):
        rows = loader()(name, revision=revision, split=split or "train", streaming=True)
        yield from rows.shuffle(seed=seed)


def loader() -> Callable[..., Any]:
    """`datasets.load_dataset`, which is slow to import, and which most runs don't need."""
    from datasets import load_dataset
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    return load_dataset


@contextmanager
def readable(place: str, from_hub: bool) -> Iterator[None]:
    """Has whatever `datasets`, its readers and its network client raise end in a UserError."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        remedy = "check the name, revision, split and network" if from_hub else "check the file"
        if from_hub and "gated" in str(error):
            page = f"https://huggingface.co/datasets/{place}"
            remedy = f"ask for access on its page, {page}, then log in with `hf auth login`"
        raise UserError(f"data {place}: {reason}; {remedy}") from error


def read_object(path: Path, column: str | None) -> list[dict]:
    """A .json file that is one object, as CAST's data are published: lists of rows by split
    (`train`, `test`), which each row is given; or lists of texts by column."""
    try:
        content = json.loads(utf8(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON ({error.msg}, line {error.lineno}); mend it") from error
    if column in content and all(isinstance(text, str) for text in content[column]):
        return [{column: text} for text in content[column]]
    rows = []
    for split, part in content.items():
        if not isinstance(part, list) or not all(isinstance(row, dict) for row in part):
            expected = "expected lists of rows by split, or of texts by column with ,column=NAME"
            raise UserError(f"{path}: {expected}; it has {', '.join(content)}")
        rows += [row | {"split": split} for row in part]
    return rows


def read_jsonl(path: Path) -> list[dict]:
    """One JSON object per line; blank lines are skipped."""
    rows = []
    for number, line in enumerate(utf8(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            mistake = f"not JSON ({error.msg}, column {error.colno})"
            raise UserError(f"{where}: {mistake}; mend or remove it") from error
        if not isinstance(row, dict):
            expected = 'expected an object like {"prompt": "..."}'
            raise UserError(f"{where}: {expected}, got {line[:40]}")
        rows.append(row)
    return rows


def utf8(path: Path) -> str:
    """What stands in a file."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, byte {error.start}: not UTF-8; save the file as UTF-8") from error
