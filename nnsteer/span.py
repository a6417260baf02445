"""Which tokens are read or steered, by position: the same in prefill, in cached decoding and under padding."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """Tokens with `first` <= offset < `stop`. The prompt's last token has offset -1, the first token after the prompt
    (generated, or of a given response) offset 0; None leaves an end open."""

    first: int | None = None
    stop: int | None = None

    def __post_init__(self) -> None:
        if self.first is not None and self.stop is not None and self.first >= self.stop:
            raise ValueError(f"span [{self.first}, {self.stop}) holds no token: first must be below stop")

    def __str__(self) -> str:
        return NAMES.get(self) or f"[{self.first}, {self.stop})"


ALL = Span()
PROMPT = Span(stop=0)
LAST_PROMPT = Span(-1, 0)  # the position that yields the first generated token
GENERATED = Span(first=0)

NAMES = {ALL: "all", PROMPT: "prompt", LAST_PROMPT: "last_prompt", GENERATED: "generated"}


@dataclass(frozen=True)
class Last:
    """For reading: the last `k` tokens of each text, of its response where it has one."""

    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"last {self.k} tokens: k must be at least 1")

    def __str__(self) -> str:
        return f"last {self.k}"


Reading = Span | Last
"""The tokens whose mean is read."""


def first_generated(k: int) -> Span:
    """The first `k` tokens after the prompt."""
    return Span(0, k)
