"""Reads which names a payload asks the server to look up, without rebuilding anything."""

from __future__ import annotations

import pickletools
from collections.abc import Iterator

import zstandard

SUBIMPORT = "cloudpickle.cloudpickle.subimport"


class Name(str):
    """A global that the pickle names, apart from its other strings."""


def names(blob: bytes) -> set[str]:
    """Every `module.name` in a compressed payload, and every module that cloudpickle imports."""
    return set(found(zstandard.ZstdDecompressor().decompress(blob)))


def found(data: bytes) -> Iterator[str]:
    """The names in a pickle of protocol 4, in order."""
    pushed: list[str | None] = [
        None,
        None,
    ]  # what the last instructions pushed, where it was a string or a global
    memo: list[str | None] = []
    importing = False
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "MEMOIZE":
            memo.append(pushed[-1])
            continue
        if opcode.name == "STACK_GLOBAL":
            top: str | None = Name(f"{pushed[-2]}.{pushed[-1]}")
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            top = memo[argument]
        else:
            top = argument if opcode.name.endswith("UNICODE") else None
        if isinstance(top, Name):
            yield str(top)
            importing = top == SUBIMPORT
        elif importing and top is not None:
            yield top
            importing = False
        pushed.append(top)
