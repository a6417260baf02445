"""Walking up the coefficients: both domains' documents under each way to steer, to rows on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.measure.skill import hits
from nnsteer.measure.tradeoff import Counts, TradeOff, walk
from nnsteer.model.runner import Runner
from nnsteer.program.program import Program
from nnsteer.progress import bar
from nnsteer.texts.skills import DOMAINS, Domain, Domains
from nnsteer.texts.source import Prompt

ROWS = "rows.jsonl"
KEY = ("split", "variant", "coefficient", "domain")
"""The columns that name a row."""
UNSTEERED, CHOSEN, PERMUTED, MATCHED = "unsteered", "chosen", "permuted", "permuted, norm-matched"  # variants beside the places
DRAWS = 16  # permutations that a control's documents take in turn: one alone can move accuracy far either way
Turns = Callable[[float], Sequence[Program]]
"""From a coefficient to the programs that the documents take in turn."""
Top = Literal["top1", "top10"]


@dataclass(frozen=True)
class Row:
    """One line of rows.jsonl: a domain's documents under one variant. The lists have an entry for each document."""

    split: str
    variant: str
    coefficient: float
    domain: Domain
    first: int
    """The number of the first document."""
    tokens: list[int]
    top1: list[int]
    top10: list[int]


@dataclass(frozen=True)
class Measuring:
    """What a split is measured with: `documents` of each domain at each coefficient, the same ones every time or, `drifting`, the
    next ones."""

    folder: Folder
    runner: Runner
    domains: Domains
    split: str
    documents: int
    drifting: bool
    max_tokens: int


def walks(m: Measuring, ways: Mapping[str, Turns], coefficients: Sequence[float]) -> dict[str, TradeOff]:
    """Each way to steer as far up the coefficients as the skill lasts; what the folder holds already is not measured again. The
    first coefficient is 0, the unsteered model, and is measured once for all ways."""
    have = {(row.split, row.variant, row.coefficient, row.domain): row for row in rows_of(m.folder)}
    with bar(f"{m.split}: accuracy", len(ways) * len(coefficients)) as watch:
        for variant, turns in ways.items():

            def left(n: int, coefficient: float, variant: str = variant, turns: Turns = turns) -> float:
                found = {}
                for domain in DOMAINS:
                    key = (m.split, variant if coefficient else UNSTEERED, coefficient, domain)
                    if key not in have:
                        have[key] = measure(m, key[1], coefficient, domain, n, turns(coefficient))
                    base = share(have[m.split, UNSTEERED, 0.0, domain])
                    if base == 0:
                        what = f"{domain}: the unsteered model predicts no token of its {m.split} documents"
                        raise UserError(f"{what}; give another model or other documents")
                    found[domain] = share(have[key]) / base
                watch(1)
                return found["skill"]

            watch(len(coefficients) - len(walk(coefficients, left)))
    return trade_offs(have.values(), m.split)


def measure(m: Measuring, variant: str, coefficient: float, domain: Domain, n: int, programs: Sequence[Program]) -> Row:
    """The row of one coefficient, the n-th of its walk; it is on disk when this returns."""
    everything = m.domains.of(domain, m.split)
    size = min(m.documents, len(everything))
    first = n * size % len(everything) if m.drifting else 0
    own: list[Prompt] = [everything[(first + i) % len(everything)] for i in range(size)]
    in_turn = [programs[i % len(programs)] for i in range(size)]
    tokens, top1, top10 = map(list, zip(*hits(m.runner, in_turn, own, m.max_tokens), strict=True))
    row = Row(m.split, variant, coefficient, domain, first, tokens, top1, top10)
    m.folder.append(ROWS, [asdict(row)])
    return row


def share(row: Row) -> float:
    """Top-1 accuracy of all tokens of a row's documents."""
    return sum(row.top1) / sum(row.tokens)


def rows_of(folder: Folder) -> list[Row]:
    """What was measured so far."""
    return [Row(**row) for row in folder.read_lines(ROWS, KEY)]


def trade_offs(rows: Iterable[Row], split: str, top: Top = "top1") -> dict[str, TradeOff]:
    """Each variant's rows of a split as one table a domain, the unsteered model's first."""
    by: dict[str, dict[float, dict[Domain, Row]]] = {}
    for row in rows:
        if row.split == split:
            by.setdefault(row.variant, {}).setdefault(row.coefficient, {})[row.domain] = row
    found = {}
    for variant in by.keys() - {UNSTEERED}:
        steps = dict(sorted((by[UNSTEERED] | by[variant]).items()))
        counts = [
            Counts(
                np.array([step[domain].tokens for step in steps.values()]),
                np.array([getattr(step[domain], top) for step in steps.values()]),
            )
            for domain in DOMAINS
        ]
        found[variant] = TradeOff(tuple(steps), *counts)
    return {variant: found[variant] for variant in by if variant in found}
