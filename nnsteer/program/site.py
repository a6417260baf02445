"""Where in the network: a layer and a stream. A direction is read and written at the same kind of place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Stream = Literal["block_in", "attn_out", "mlp_out", "block_out"]
STREAMS: tuple[Stream, ...] = get_args(Stream)  # in the order in which a block computes them


@dataclass(frozen=True)
class Site:
    """One place in the residual stream, [hidden]. `Site(3)` is what leaves block 3 (0-based), before any final norm;
    `attn_out` and `mlp_out` are what a block's two halves add to the stream, after any norm that follows them."""

    layer: int
    stream: Stream = "block_out"

    def __post_init__(self) -> None:
        if self.layer < 0:
            raise ValueError(f"layer {self.layer}: layers count from 0")
        if self.stream not in STREAMS:
            raise ValueError(f"stream {self.stream!r}: expected one of {', '.join(STREAMS)}")

    @property
    def order(self) -> tuple[int, float, int]:
        """Sorts sites by when the forward pass reaches them."""
        return self.layer, STREAMS.index(self.stream), 0

    def __str__(self) -> str:
        return f"{self.stream}[{self.layer}]"


@dataclass(frozen=True)
class Head:
    """One attention head's output before the output projection mixes it with the others, [head width]."""

    layer: int
    head: int

    def __post_init__(self) -> None:
        if self.layer < 0 or self.head < 0:
            raise ValueError(f"layer {self.layer}, head {self.head}: layers and heads count from 0")

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
