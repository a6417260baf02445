"""Where in the network directions are read and written: a layer and a stream, or a head."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import index
from typing import Any, Literal, get_args

from nnsteer.errors import UserError

Stream = Literal["block_in", "attn_out", "mlp_out", "block_out"]
STREAMS: tuple[Stream, ...] = get_args(Stream)  # in the order in which a block computes them


@dataclass(frozen=True)
class Site:
    """One place in the residual stream, [hidden]. `Site(3)` is what leaves block 3 (0-based),
    before any final norm; `attn_out` and `mlp_out` are what a block's two halves add to the stream,
    after any norm that follows them."""

    layer: int
    stream: Stream = "block_out"

    def __post_init__(self) -> None:
        if self.layer < 0:
            raise UserError(f"layer {self.layer}: layers count from 0")
        if self.stream not in STREAMS:
            raise UserError(f"stream {self.stream!r}: expected one of {', '.join(STREAMS)}")

    @property
    def order(self) -> tuple[int, float, int]:
        """Sorts sites by when the forward pass reaches them."""
        return self.layer, STREAMS.index(self.stream), 0

    def __str__(self) -> str:
        return f"{self.stream}[{self.layer}]"


@dataclass(frozen=True)
class Head:
    """One attention head's output, [head width], before the output projection mixes it with the
    others."""

    layer: int
    head: int

    def __post_init__(self) -> None:
        if self.layer < 0 or self.head < 0:
            raise UserError(f"layer {self.layer}, head {self.head}: layers and heads count from 0")

    @property
    def order(self) -> tuple[int, float, int]:
        """Sorts beside sites: after the block's input, before its attention's output."""
        return self.layer, 0.5, self.head

    def __str__(self) -> str:
        return f"head[{self.layer}.{self.head}]"


Place = Site | Head


def block_outs(layers: range | list[int] | tuple[int, ...]) -> tuple[Site, ...]:
    """The residual stream leaving each of `layers`."""
    return tuple(Site(layer) for layer in layers)


def as_place(given: Place | int) -> Place:
    """A place, or a layer's number, which stands for what leaves that block. Raises UserError for
    anything else."""
    if isinstance(given, Site | Head):
        return given
    layer = as_layer(given)
    if layer is None or layer < 0:
        raise UserError(f"site {given!r}: expected a Site, a Head or a layer's number, from 0 up")
    return Site(layer)


def as_layer(given: Any) -> int | None:
    """A layer's number (an int, or numpy's), or None for anything else."""
    try:
        return None if isinstance(given, bool) else index(given)
    except TypeError:
        return None


def named(places: Iterable[Place]) -> str:
    """Places in a few words: `block_out[0, 1, 2], head[1.3]`; a long run of layers as
    `block_out[0 to 31]`."""
    numbers: dict[str, list[str]] = {}
    for place in dict.fromkeys(places):
        kind, _, number = str(place).rstrip("]").partition("[")
        numbers.setdefault(kind, []).append(number)
    return ", ".join(f"{kind}[{run(layers)}]" for kind, layers in numbers.items()) or "no site"


def run(numbers: list[str]) -> str:
    """Numbers with commas, or, where five or more follow each other, their ends."""
    first, last = numbers[0], numbers[-1]
    if len(numbers) < 5 or not first.isdecimal():
        return ", ".join(numbers)
    following = [str(int(first) + i) for i in range(len(numbers))]
    return f"{first} to {last}" if numbers == following else ", ".join(numbers)
