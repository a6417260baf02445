"""A run's folder: what was asked for, what was computed, written so that a killed run goes on where
it stopped.

One process at a time writes there: it holds a lock on the file `.lock`, which goes with it. Anyone
may read.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from nnsteer.errors import UserError
from nnsteer.writing import PARTIAL, replacing

LIBRARIES = (
    *("nnsteer", "nnsight", "torch", "transformers", "tokenizers", "datasets", "scipy", "numpy"),
)
FORMAT = 2
"""Of what lies in a run's folder. It grows whenever an older folder can no longer be read."""
LOCK = ".lock"
NEW = "give a folder that is new or empty"
OTHER = "give another folder"


@dataclass(frozen=True)
class Folder:
    """A run folder that is ours to write in, as long as the lock that `open_folder` took is
    here."""

    path: Path
    lock: FileLock | None = field(default=None, compare=False, repr=False)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def has(self, name: str) -> bool:
        """Whether this artefact was finished by an earlier start of the same run."""
        return (self.path / name).exists()

    def write_json(self, name: str, value: object) -> None:
        """The whole file or none of it."""
        self.write_text(name, json.dumps(value, indent=1) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """The whole file or none of it."""
        with replacing(self.path / name) as partial, partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def read_json(self, name: str) -> dict:
        """A file written by `write_json`."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    def append(self, name: str, rows: Iterable[dict]) -> None:
        """Adds JSON lines in one write, and waits until they are on disk. A last line that a kill
        cut short is cut off before."""
        with (self.path / name).open("a+b") as file:
            cut_torn(file)
            file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
            file.flush()
            os.fsync(file.fileno())

    def write_lines(self, name: str, rows: Iterable[dict]) -> None:
        """JSON lines, the whole file or none of it."""
        self.write_text(name, "".join(json.dumps(row) + "\n" for row in rows))

    def read_lines(self, name: str, key: Sequence[str] = ()) -> list[dict]:
        """The rows appended so far, without a last line that a kill cut short; of rows that agree
        in all the columns of `key`, the first alone. Changes nothing: another process may be
        appending. Raises UserError naming a line that is no row."""
        path = self.path / name
        if not path.exists():
            return []
        lines = path.read_bytes().split(b"\n")[:-1]
        rows = [row_of(path, number, line) for number, line in enumerate(lines, start=1)]
        return unique(rows, key) if key else rows

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Adds the seconds spent on a step to seconds.json, over all starts of the run."""
        start = time.monotonic()
        try:
            yield
        finally:
            seconds = self.read_json("seconds.json") if self.has("seconds.json") else {}
            seconds[step] = round(seconds.get(step, 0.0) + time.monotonic() - start, 2)
            self.write_json("seconds.json", seconds)


def row_of(path: Path, number: int, line: bytes) -> dict:
    """The row of one line."""
    try:
        row = json.loads(line)
    except ValueError:  # not JSON, or not UTF-8
        row = None
    if not isinstance(row, dict):
        raise UserError(
            f"{path}, line {number}: not a row of a run; "
            "mend or remove the line, it is computed again"
        )
    return row


def unique(rows: Iterable[dict], key: Sequence[str]) -> list[dict]:
    """Of rows that agree in all the columns of `key`, the first."""
    first: dict[tuple, dict] = {}
    for row in rows:
        first.setdefault(tuple(row.get(name) for name in key), row)
    return list(first.values())


def cut_torn(file: BinaryIO) -> None:
    """Cuts off a last line without an end, at its first byte."""
    if file.seek(0, os.SEEK_END) == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        os.fsync(file.fileno())


def hold(path: Path, called: str = "--out") -> FileLock:
    """Keeps other processes from writing in an existing folder, until the lock is released or no
    longer referred to, or the process ends. Within a process every caller has the same lock. Raises
    UserError at once where another process has it."""
    lock = FileLock(path / LOCK, is_singleton=True, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{called} {path}: another process is writing there; wait for it, or {OTHER}"
        ) from None
    return lock


def check_folder(path: Path, settings: Mapping, recipe: str = "study", writes: bool = True) -> None:
    """Raises UserError unless `path` is free or holds a run of the same recipe with the same
    settings, that no other process is writing (which does not matter where `writes` is false).
    Writes nothing."""
    path = path.expanduser()
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"--out {path}: is a file; {NEW}")
    if writes and (path / LOCK).exists():
        hold(path).release()
    if all(
        one.name == LOCK or (one.name[0] == "." and one.suffix == PARTIAL) for one in path.iterdir()
    ):
        return  # empty, but for what a kill left
    begun = config_of(path)
    if begun["recipe"] != recipe:
        raise UserError(
            f"--out {path}: already holds another run (of {begun['recipe']}, not {recipe}); {OTHER}"
        )
    asked, settings = (
        begun["settings"],
        json.loads(json.dumps(settings)),
    )  # tuples come back as lists
    changed = sorted(name for name in {*asked, *settings} if asked.get(name) != settings.get(name))
    if changed:
        raise UserError(
            f"--out {path}: already holds another run ({', '.join(changed)} differ); {OTHER}"
        )


def config_of(path: Path, called: str = "--out", advice: str = NEW) -> dict:
    """The config.json of a run's folder. Raises UserError, in the words of the option that named
    the folder, where there is none, or one of another version."""
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config["settings"], dict):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{called} {path}: holds files that are not a run; {advice}") from None
    if config.get("format") != FORMAT or not isinstance(config.get("recipe"), str):
        number = config.get("format")
        of = "a later" if isinstance(number, int) and number > FORMAT else "an earlier"
        what = f"holds a run of {of} version of nnsteer, which this one can't read"
        raise UserError(f"{called} {path}: {what}; {advice}")
    return config


def open_folder(path: Path, settings: Mapping, facts: Mapping, recipe: str = "study") -> Folder:
    """Starts a run folder, or goes on with the same run, and keeps other processes out. `settings`
    decide the results; `facts` are recorded beside them. Raises UserError as `check_folder` does,
    and for other facts."""
    path = path.expanduser()
    check_folder(path, settings, recipe)
    path.mkdir(parents=True, exist_ok=True)
    folder = Folder(path, hold(path))
    check_folder(path, settings, recipe)  # another process may have begun it just now
    if folder.has("config.json"):
        begun = folder.read_json("config.json")
        for name, value in facts.items():
            if begun.get(name) != value:
                was = f"{begun.get(name)}, now {value}"
                raise UserError(f"--out {path}: was begun with another {name} ({was}); {OTHER}")
    else:
        versions = {name: version(name) for name in LIBRARIES} | {
            "python": platform.python_version()
        }
        about = {"format": FORMAT, "recipe": recipe, "settings": settings}
        folder.write_json(
            "config.json", {**about, "command": sys.argv, "versions": versions, **facts}
        )
    return folder
