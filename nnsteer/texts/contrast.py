"""A contrast set: texts that show a concept beside texts that don't."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Text(NamedTuple):
    """A user's prompt, and the beginning of an answer to it ("" for none)."""

    prompt: str
    response: str = ""


@dataclass(frozen=True)
class ContrastSet:
    """Two sides of texts. Where a method needs pairs (`fit.pca_pairwise`), the i-th texts of the sides are one pair."""

    positive: tuple[Text, ...]
    negative: tuple[Text, ...]

    def __post_init__(self) -> None:
        for name, side in (("positive", self.positive), ("negative", self.negative)):
            if not side:
                raise ValueError(f"the {name} side of a contrast set is empty: give at least one text")

    def fingerprint(self) -> str:
        """Names the data in saved files: a hash of both sides in order, piece by piece, as they may be long."""
        name = hashlib.sha256()
        for piece in json.JSONEncoder().iterencode([self.positive, self.negative]):
            name.update(piece.encode())
        return name.hexdigest()[:16]


def of_prompts(positive: Sequence[str], negative: Sequence[str]) -> ContrastSet:
    """Prompts with the concept against prompts without it, paired in order and cut to the shorter side (CAST section 4)."""
    n = min(len(positive), len(negative))
    return ContrastSet(tuple(map(Text, positive[:n])), tuple(map(Text, negative[:n])))


def of_responses(prompts: Sequence[str], positive: Sequence[str], negative: Sequence[str], seed: int) -> ContrastSet:
    """Each prompt twice, answered with a positive and with a negative opener, drawn by the seed: the two texts of a pair
    differ in the opener alone (CAST section 3.2, behaviour vector)."""
    rng = random.Random(seed)
    return ContrastSet(
        tuple(Text(prompt, rng.choice(positive)) for prompt in prompts),
        tuple(Text(prompt, rng.choice(negative)) for prompt in prompts),
    )
