"""A run's folder: what was asked for, what was computed, written so that a killed run goes on where it stopped."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from nnsteer.errors import UserError

LIBRARIES = ("nnsteer", "nnsight", "torch", "transformers", "tokenizers", "datasets", "scipy", "numpy")


@dataclass(frozen=True)
class Folder:
    """A run folder that is ours to write in."""

    path: Path

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
        partial = self.path / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(self.path / name)

    def read_json(self, name: str) -> dict:
        """A file written by `write_json`."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    def append(self, name: str, rows: Iterable[dict]) -> None:
        """Adds JSON lines in one write, and waits until they are on disk."""
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
            file.flush()
            os.fsync(file.fileno())

    def write_lines(self, name: str, rows: Iterable[dict]) -> None:
        """JSON lines, the whole file or none of it."""
        self.write_text(name, "".join(json.dumps(row) + "\n" for row in rows))

    def read_lines(self, name: str) -> list[dict]:
        """The rows appended so far. A last line that a kill cut short is removed from the file."""
        path = self.path / name
        if not path.exists():
            return []
        whole, newline, torn = path.read_text(encoding="utf-8").rpartition("\n")
        if torn:
            path.write_text(whole + newline, encoding="utf-8")
        return [json.loads(line) for line in whole.splitlines()]

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


def check_folder(path: Path, settings: dict) -> None:
    """Raises UserError unless `path` is free or holds a run with the same settings. Writes nothing."""
    path = path.expanduser()
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"--out {path}: is a file; give a folder that is new or empty")
    if not any(path.iterdir()):
        return
    try:
        asked = json.loads((path / "config.json").read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"--out {path}: holds files that are not a run; give a folder that is new or empty") from None
    settings = json.loads(json.dumps(settings))  # tuples come back as lists
    changed = sorted(name for name in {*asked, *settings} if asked.get(name) != settings.get(name))
    if changed:
        raise UserError(f"--out {path}: already holds another run ({', '.join(changed)} differ); give another folder")


def open_folder(path: Path, settings: dict, facts: dict) -> Folder:
    """Starts a run folder, or goes on with the same run. `settings` decide the results; `facts` are recorded beside them."""
    path = path.expanduser()
    check_folder(path, settings)
    path.mkdir(parents=True, exist_ok=True)
    folder = Folder(path)
    if folder.has("config.json"):
        begun = folder.read_json("config.json")
        for name, value in facts.items():
            if begun.get(name) != value:
                raise UserError(
                    f"--out {path}: was begun with another {name} ({begun.get(name)}, now {value}); give another folder"
                )
    else:
        versions = {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}
        folder.write_json("config.json", {"settings": settings, "command": sys.argv, "versions": versions, **facts})
    return folder
