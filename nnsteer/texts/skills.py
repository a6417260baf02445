"""The data of a skills experiment: documents that show a skill, and documents of what the model is to retain."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Literal

from nnsteer.errors import UserError
from nnsteer.texts import documents
from nnsteer.texts.source import SPLITS, Prompt, Source, Splits, column_of, load_prompts, parse_source, picked, read_rows

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
        splits = self.skill if domain == "skill" else self.retained
        return {"fit": splits.fit, "tune": splits.tune, "test": splits.test}[split]

    def fingerprints(self) -> dict[str, str]:
        """A hash of each domain's documents."""
        return {"skill": self.skill.fingerprint(), "retained": self.retained.fingerprint()}


def load_documents(sources: Sequence[str], sizes: tuple[int, int, int], seed: int) -> Splits:
    """At most `sizes` documents to fit, tune and test on, in an order drawn by the seed: from one SOURCE, or from two, the second
    of which has those to tune and test on. Hub datasets are streamed, no more of them than is needed."""
    if len(sources) not in (1, 2):
        given = ", ".join(sources) or "none"
        raise UserError(f"sources of documents ({given}): give one, or one to fit on and one to tune and test on")
    first, *held = sources
    if held:
        fitted, rest = texts(first, sizes[0], seed), texts(held[0], sum(sizes[1:]), seed)
        parts = [fitted, *divided([text for text in rest if text not in set(fitted)], sizes[1:])]
    elif first in BUNDLED:
        parts = [shuffled(BUNDLED[first](split), seed) for split in documents.PARTS[1:]]
    elif parse_source(first).where or parse_source(first).revision:
        parts = divided(texts(first, sum(sizes), seed), sizes)
    else:
        splits = load_prompts(first, seed)
        parts = [shuffled([prompt.text for prompt in part], seed) for part in (splits.fit, splits.tune, splits.test)]
    for name, part in zip(SPLITS, parts, strict=True):
        if not part:
            raise UserError(f"data {' and '.join(sources)}: no document left for the {name} split; give more documents")
    return Splits(*(tuple(map(Prompt, part[:size])) for part, size in zip(parts, sizes, strict=True)))


def divided(texts: list[str], sizes: Sequence[int]) -> list[list[str]]:
    """The texts in as many parts, in proportion to their sizes."""
    cuts = [round(len(texts) * sum(sizes[:i]) / sum(sizes)) for i in range(len(sizes) + 1)]
    return [texts[start:stop] for start, stop in pairwise(cuts)]


def texts(text: str, n: int, seed: int) -> list[str]:
    """The first `n` different documents of a SOURCE in an order drawn by the seed."""
    source = parse_source(text)
    if source.revision is None:
        everything: Iterable[dict] = shuffled(read_rows(replace(source, where=None, first=None)), seed)
    else:
        everything = streamed(source, seed)
    rows = picked(everything, source)
    column = source.column or "prompt"
    filled = (row for row in rows if not isinstance(row.get(column), str) or row[column].strip())
    taken = list(islice(filled, n if source.first is None else min(n, source.first)))
    if not taken:
        raise UserError(f"data {text}: holds no document; check the column, the split and the condition")
    column_of(source, taken, "prompt")
    return list(dict.fromkeys(row[column].strip() for row in taken))


def streamed(source: Source, seed: int) -> Iterator[dict]:
    """The rows of a hub dataset as they arrive, shuffled within the buffer of `datasets`."""
    from datasets import load_dataset  # slow to import, and most runs don't need it

    try:
        rows = load_dataset(source.place, revision=source.revision, split=source.split or "train", streaming=True)
        yield from rows.shuffle(seed=seed)
    except Exception as error:  # datasets raises whatever its readers and its network client raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"data {source.place}: {reason}; check the name, revision, split and network") from error


def shuffled(rows: list, seed: int) -> list:
    """The same rows in an order drawn by the seed."""
    return random.Random(seed).sample(rows, len(rows))
