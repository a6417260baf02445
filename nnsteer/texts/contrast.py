"""A contrast set: texts that show a concept beside texts that don't."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from nnsteer.errors import UserError
from nnsteer.texts.conversation import EXAMPLE, conversation, hashable, is_turn


class Text(NamedTuple):
    """A user's prompt, and the beginning of an answer to it ("" for none)."""

    prompt: str
    response: str = ""


@dataclass(frozen=True)
class ContrastSet:
    """Two sides of texts. Where a method needs pairs (`fit.pca_pairwise`), the i-th texts of the
    sides are one pair."""

    positive: tuple[Text, ...]
    negative: tuple[Text, ...]

    def __post_init__(self) -> None:
        for name, side in (("positive", self.positive), ("negative", self.negative)):
            if not side:
                empty = f"the {name} side of a contrast set is empty"
                raise UserError(f"{empty}: give at least one text")

    def fingerprint(self) -> str:
        """Names the data in saved files: a hash of both sides in order, piece by piece, as they may
        be long."""
        name = hashlib.sha256()
        sides = [
            [(hashable(text.prompt), text.response) for text in side]
            for side in (self.positive, self.negative)
        ]
        for piece in json.JSONEncoder().iterencode(sides):
            name.update(piece.encode())
        return name.hexdigest()[:16]


def of_prompts(positive: Sequence[str], negative: Sequence[str]) -> ContrastSet:
    """Prompts with the concept against prompts without it, paired in order and cut to the shorter
    side (CAST section 4)."""
    sides = as_texts("positive", positive), as_texts("negative", negative)
    n = min(map(len, sides))
    return ContrastSet(*(tuple(map(Text, side[:n])) for side in sides))


def of_responses(
    prompts: Sequence[str], positive: Sequence[str], negative: Sequence[str], seed: int = 0
) -> ContrastSet:
    """Each prompt twice, answered with a positive and with a negative opener, drawn by the seed:
    the two texts of a pair differ in the opener alone (CAST section 3.2, behaviour vector)."""
    questions, rng = as_texts("prompts", prompts), random.Random(seed)
    openers = {
        "positive": as_texts("positive", positive),
        "negative": as_texts("negative", negative),
    }
    sides = []
    for name, side in openers.items():
        if not side:
            raise UserError(f"{name}: no openers; give at least one")
        sides.append(tuple(Text(question, rng.choice(side)) for question in questions))
    return ContrastSet(*sides)


def as_texts(name: str, given: Any) -> list[str]:
    """Prompts in a list: texts, or a chat's turns as messages. Raises UserError for a text or a
    chat alone, and for what is neither."""
    if isinstance(given, str | Mapping) or not hasattr(given, "__iter__"):
        kind = type(given).__name__
        raise UserError(f"{name}: got a {kind}; expected texts; give a list of them")
    prompts = list(given)
    if prompts and all(map(is_turn, prompts)):
        raise UserError(f"{name}: got one chat's turns; expected prompts; give a list of chats")
    return [as_prompt(f"{name}[{i}]", prompt) for i, prompt in enumerate(prompts)]


def as_prompt(name: str, given: Any) -> str:
    """A text, or a chat's turns as a `Conversation`."""
    if isinstance(given, str):
        return given
    if isinstance(given, list | tuple) and given and all(map(is_turn, given)):
        return conversation(name, given)
    kind = type(given).__name__
    raise UserError(f"{name}: got a {kind}; expected a text or a chat's turns, such as {EXAMPLE}")
