"""Where in the network: a layer and a stream. A direction is read and written at the same kind of place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Stream = Literal["block_in", "attn_out", "mlp_out", "block_out"]
STREAMS: tuple[Stream, ...] = get_args(Stream)  # in the order in which a block computes them


@dataclass(frozen=True)
class Site:
    """One place in the network. `Site(3)` is the residual stream that leaves block 3 (0-based), before any final norm."""

    layer: int
    stream: Stream = "block_out"

    def __post_init__(self) -> None:
        if self.layer < 0:
            raise ValueError(f"layer {self.layer}: layers count from 0")
        if self.stream not in STREAMS:
            raise ValueError(f"stream {self.stream!r}: expected one of {', '.join(STREAMS)}")

    @property
    def order(self) -> tuple[int, int]:
        """Sorts sites by when the forward pass reaches them."""
        return self.layer, STREAMS.index(self.stream)

    def __str__(self) -> str:
        return f"{self.stream}[{self.layer}]"


def block_outs(layers: range | list[int] | tuple[int, ...]) -> tuple[Site, ...]:
    """The residual stream leaving each of `layers`."""
    return tuple(Site(layer) for layer in layers)
