"""Trusted mode: the block runs in this process, as NDIF does it for keys that it trusts."""

from __future__ import annotations

import io
import linecache
import traceback
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from nnsight import TransformersModel
from nnsight.intervention.serialization import CustomCloudUnpickler
from nnsight.schema.request import RequestModel
from nnsight.tracing import globals as sources
from nnsight.tracing.tracer import _saves, dec, inc
from nnsight.tracing.util import clean_traceback, filter_traceback

Log = Callable[[str], None]
OURS = (str(Path(__file__).parent), str(Path(futures.__file__).parent))
UNREADABLE = (
    "Your request payload could not be read ({}: {}). It may be truncated or corrupted in "
    "transit, or compressed differently "
    "than the request declared. Re-sending it usually resolves this; "
    "if it persists, check that the client and server nnsight "
    "versions match."
)
"""NDIF's own words."""


class Told(Exception):
    """A failure of which the client is told this text, no more."""


def execute(
    model: TransformersModel,
    request: RequestModel,
    blob: bytes,
    log: Log,
    unpickler: type[CustomCloudUnpickler] = CustomCloudUnpickler,
    builtins: dict | None = None,
) -> bytes:
    """Runs one request; the saved values, packed. `unpickler` rebuilds what the client sent,
    `builtins` replaces the block's."""
    with forgotten(), printed(log):
        try:
            tracer = RequestModel.deserialize(
                blob, model._remoteable_persistent_objects(), request.compress, unpickler
            )
        except Exception as error:
            raise Told(UNREADABLE.format(type(error).__name__, error)) from error
        if builtins is not None:
            tracer.info.frame.f_locals["__builtins__"] = builtins
        inc()
        try:
            tracer.execute(tracer.info.code)
            saves = _saves()
            saved = {
                name: value
                for name, value in tracer.info.frame.f_locals.items()
                if id(value) in saves
            }
        finally:
            dec()
    file = io.BytesIO()
    torch.save(saved, file, pickle_protocol=4)
    return file.getvalue()


def described(error: Exception) -> str:
    """What the client is told of a failure: the traceback of its own code."""
    if isinstance(error, Told):
        return str(error)
    frames = getattr(error, "__intervention_tb__", None) or clean_traceback(error.__traceback__)
    frames = filter_traceback(frames, lambda frame: not frame.f_code.co_filename.startswith(OURS))
    return "".join(traceback.format_exception(type(error), error, frames))


@contextmanager
def forgotten() -> Iterator[None]:
    """Undoes what nnsight remembers of a block by the client's file and line: the next request may
    have the same."""
    caches = (linecache.cache, sources.SOURCES, sources.BLOCKS)
    before = [dict(cache) for cache in caches]
    try:
        yield
    finally:
        for cache, old in zip(caches, before, strict=True):
            cache.clear()
            cache.update(old)


class Lines(io.TextIOBase):
    """Hands on what is written, line by line."""

    def __init__(self, log: Log) -> None:
        self.log, self.begun = log, ""

    def write(self, text: str) -> int:
        *whole, self.begun = (self.begun + text).split("\n")
        for line in whole:
            self.log(line)
        return len(text)


@contextmanager
def printed(log: Log) -> Iterator[None]:
    """Hands on what the block prints."""
    with redirect_stdout(Lines(log)), redirect_stderr(Lines(log)):
        yield
