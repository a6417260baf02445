"""The data of a skills experiment: documents of a skill, and of what the model is to retain."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Literal

from nnsteer.errors import UserError
from nnsteer.texts import documents
from nnsteer.texts.rows import hub_stream
from nnsteer.texts.source import (
    SPLITS,
    Prompt,
    Splits,
    column_of,
    load_prompts,
    parse_source,
    picked,
    read_rows,
)

Domain = Literal["skill", "retained"]
DOMAINS: tuple[Domain, Domain] = ("skill", "retained")
BUNDLED = {"nnsteer:code": documents.code, "nnsteer:prose": documents.prose}


@dataclass(frozen=True)
class Domains:
    """Both domains' documents in their splits."""

    skill: Splits
    retained: Splits

    def of(self, domain: Domain, split: str) -> tuple[Prompt, ...]:
        """The documents of a split of one domain."""
        return (self.skill if domain == "skill" else self.retained).of(split)

    def fingerprints(self) -> dict[str, str]:
        """A hash of each domain's documents."""
        return {"skill": self.skill.fingerprint(), "retained": self.retained.fingerprint()}


def load_documents(sources: Sequence[str], sizes: tuple[int, int, int], seed: int) -> Splits:
    """At most `sizes` documents to fit, tune and test on, in an order drawn by the seed: from one
    SOURCE, or from two, the second of which has those to tune and test on. Hub datasets are
    streamed, no more of them than is needed."""
    if len(sources) not in (1, 2):
        given = ", ".join(sources) or "none"
        expected = "give one, or one to fit on and one to tune and test on"
        raise UserError(f"sources of documents ({given}): {expected}")
    first, *second = sources
    if second:
        fit = texts(first, sizes[0], seed)
        rest = [text for text in texts(second[0], sum(sizes[1:]), seed) if text not in set(fit)]
        parts = [fit, *divided(rest, sizes[1:])]
    elif first in BUNDLED:
        parts = [shuffled(BUNDLED[first](split), seed) for split in documents.PARTS[1:]]
    elif parse_source(first).where or parse_source(first).revision:
        parts = divided(texts(first, sum(sizes), seed), sizes)
    else:
        splits = load_prompts(first, seed)
        parts = [shuffled([prompt.text for prompt in splits.of(name)], seed) for name in SPLITS]
    for name, part in zip(SPLITS, parts, strict=True):
        if not part:
            missing = f"no document left for the {name} split"
            raise UserError(f"data {' and '.join(sources)}: {missing}; give more documents")
    return Splits(*(tuple(map(Prompt, part[:n])) for part, n in zip(parts, sizes, strict=True)))


def divided(texts: list[str], sizes: Sequence[int]) -> list[list[str]]:
    """The texts in as many parts, in proportion to their sizes."""
    cuts = [round(len(texts) * sum(sizes[:i]) / sum(sizes)) for i in range(len(sizes) + 1)]
    return [texts[start:stop] for start, stop in pairwise(cuts)]


def texts(text: str, n: int, seed: int) -> list[str]:
    """The first `n` different documents of a SOURCE in an order drawn by the seed."""
    source = parse_source(text)
    if source.revision is None:
        rows: Iterable[dict] = shuffled(read_rows(replace(source, where=None, first=None)), seed)
    else:
        rows = hub_stream(source.place, source.revision, source.split, seed)
    column = source.column or "prompt"
    filled = (row for row in picked(rows, source) if not is_blank(row.get(column)))
    taken = list(islice(filled, n if source.first is None else min(n, source.first)))
    if not taken:
        remedy = "check the column, the split and the condition"
        raise UserError(f"data {text}: holds no document; {remedy}")
    column_of(source, taken, "prompt")
    return list(dict.fromkeys(row[column].strip() for row in taken))


def is_blank(value: object) -> bool:
    """Whether a value is a text with nothing in it; what is no text is reported later."""
    return isinstance(value, str) and not value.strip()


def shuffled(rows: list, seed: int) -> list:
    """The same rows in an order drawn by the seed."""
    return random.Random(seed).sample(rows, len(rows))
