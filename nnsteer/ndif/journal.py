"""Every request of a run, on disk: what was asked, what became of it, and its result."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nnsteer.folder import Folder
from nnsteer.writing import replacing

REQUESTS, RESULTS = "requests.jsonl", "requests"


@dataclass(frozen=True)
class Journal:
    """requests.jsonl of a run folder, and requests/KEY.pt for each result. A request's key says all
    that determines its result, so that a run that was killed finds its results and jobs again."""

    folder: Folder

    def last(self, key: str) -> dict | None:
        """The newest line of a request."""
        rows = [row for row in self.folder.read_lines(REQUESTS) if row["key"] == key]
        return rows[-1] if rows else None

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
    return hashlib.sha256(b"".join(pieces(values))).hexdigest()[:20]


def pieces(value: Any) -> Iterator[bytes]:
    """What a value is told from others by, its kind and its shape included."""
    if isinstance(value, Tensor):
        data = value.detach().cpu().contiguous()
        yield f"tensor {data.dtype} {tuple(data.shape)}".encode()
        yield data.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Mapping):
        yield from pieces([*value.items()])
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield f"list {len(value)}".encode()
        for item in value:
            yield from pieces(item)
    elif callable(value):
        yield inspect.getsource(value).encode()
    else:
        yield f"{type(value).__name__} {value!r}\n".encode()
