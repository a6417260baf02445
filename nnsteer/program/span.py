"""Which tokens are read or steered: the same in prefill, in cached decoding and under padding."""

from __future__ import annotations

from dataclasses import dataclass

from nnsteer.errors import UserError


@dataclass(frozen=True)
class Span:
    """Tokens with `first` <= offset < `stop`. The prompt's last token has offset -1, the first
    token after the prompt (generated, or of a given response) offset 0; None leaves an end open."""

    first: int | None = None
    stop: int | None = None

    def __post_init__(self) -> None:
        if self.first is not None and self.stop is not None and self.first >= self.stop:
            raise UserError(f"span {self} holds no token: first must be below stop")

    def __str__(self) -> str:
        return NAMES.get(self) or f"[{self.first}, {self.stop})"


@dataclass(frozen=True)
class Positions:
    """Single tokens, numbered as Python numbers a list: 0 is the text's first token (its BOS, where
    there is one), -1 the prompt's last. A number at or beyond the prompt's length is a token after
    the prompt."""

    at: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.at:
            raise UserError("positions: give at least one")

    def __str__(self) -> str:
        return f"positions {', '.join(map(str, self.at))}"


@dataclass(frozen=True)
class Last:
    """For reading: the last `k` tokens of each text, of its response where it has one."""

    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UserError(f"last {self.k} tokens: k must be at least 1")

    def __str__(self) -> str:
        return f"last {self.k}"


Where = Span | Positions
"""The tokens that are steered."""
Reading = Span | Positions | Last
"""The tokens whose mean is read."""

ALL = Span()
PROMPT = Span(stop=0)
LAST_PROMPT = Span(-1, 0)  # the position that yields the first generated token
GENERATED = Span(first=0)  # for reading: the response, of each row's own length
RESPONSE = GENERATED  # the same, by what it is when read
ANSWER = Last()  # for reading: the last token of the response, such as the letter of an A/B answer

NAMES = {ALL: "all", PROMPT: "prompt", LAST_PROMPT: "last_prompt", GENERATED: "generated"}


def first_generated(k: int) -> Span:
    """The first `k` tokens after the prompt."""
    return Span(0, k)
