"""A chat's turns as a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nnsteer.errors import UserError

ROLES = ("system", "user", "assistant")
EXAMPLE = '[{"role": "user", "content": "..."}]'


class Conversation(str):
    """Turns of (role, content), the last one the user's; it may stand wherever a prompt does. As
    text it reads `role: content`, a turn a line; it equals no plain text."""

    turns: tuple[tuple[str, str], ...]

    def __new__(cls, turns: Iterable[tuple[str, str]]) -> Conversation:
        turns = tuple(turns)
        made = super().__new__(cls, "\n".join(f"{role}: {content}" for role, content in turns))
        made.turns = turns
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Conversation) and self.turns == other.turns

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.turns)

    def strip(self, *_: object) -> Conversation:
        """Itself: what its turns hold stays as it is."""
        return self


def hashable(prompt: str) -> Any:
    """What tells a prompt from others in a hash: a chat's turns, or the text."""
    return prompt.turns if isinstance(prompt, Conversation) else prompt


def is_turn(value: object) -> bool:
    """Whether this is a turn as chat templates take it."""
    return isinstance(value, Mapping) and "role" in value


def conversation(name: str, messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """Turns as chat templates take them, {"role": ..., "content": ...} each. Raises UserError, with
    `name` in it, for other roles, contents that are no text, and where the user's is not the
    last."""
    turns = []
    for number, message in enumerate(messages):
        role, content = message["role"], message.get("content")
        if role not in ROLES:
            known = ", ".join(ROLES)
            raise UserError(f"{name}, turn {number}: role {role!r}; expected one of {known}")
        if not isinstance(content, str):
            kind = type(content).__name__
            raise UserError(f"{name}, turn {number}: content is a {kind}; expected a text")
        turns.append((role, content))
    if turns[-1][0] != "user":
        last = f"the last turn is the {turns[-1][0]}'s"
        raise UserError(f"{name}: {last}; expected the user's; end it with what is asked")
    return Conversation(turns)
