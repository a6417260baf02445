"""Every request of a run, on disk: what was asked, what became of it, and its result."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nnsteer.folder import Folder
from nnsteer.writing import replacing

REQUESTS, RESULTS = "requests.jsonl", "requests"


@dataclass(frozen=True)
class Journal:
    """requests.jsonl of a run folder, and requests/KEY.pt for each result. A request's key says all that determines its result,
    so that a run that was killed finds its results, and its jobs that are still under way."""

    folder: Folder

    def last(self, key: str) -> dict | None:
        """The newest line of a request."""
        return next((row for row in reversed(self.folder.read_lines(REQUESTS)) if row["key"] == key), None)

    def note(self, key: str, step: str, state: str, **facts: Any) -> None:
        """Adds a line: "sent" with the job's id, "done" with what it took, "failed" with why."""
        self.folder.append(REQUESTS, [{"key": key, "step": step, "state": state, **facts}])

    def stored(self, key: str) -> dict | None:
        """The result of a request that is done."""
        file = self.folder / RESULTS / f"{key}.pt"
        return torch.load(file, weights_only=True) if file.exists() else None

    def store(self, key: str, result: dict) -> None:
        """Keeps a result: the whole file or none of it."""
        (self.folder / RESULTS).mkdir(exist_ok=True)
        file = self.folder / RESULTS / f"{key}.pt"
        with replacing(file) as partial:
            torch.save(result, partial)


def digest(*values: Any) -> str:
    """Twenty hex digits of nested containers of tensors and plain values."""
    found = hashlib.sha256()
    feed(found, values)
    return found.hexdigest()[:20]


def feed(found: Any, value: Any) -> None:
    """Adds a value to a hash, its kind and its shape included."""
    if isinstance(value, Tensor):
        data = value.detach().cpu().contiguous()
        found.update(f"tensor {data.dtype} {tuple(data.shape)}".encode() + data.reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        feed(found, [*value.items()])
    elif isinstance(value, Sequence) and not isinstance(value, str):
        found.update(f"list {len(value)}".encode())
        for item in value:
            feed(found, item)
    elif callable(value):
        found.update(inspect.getsource(value).encode())
    else:
        found.update(f"{type(value).__name__} {value!r}\n".encode())
