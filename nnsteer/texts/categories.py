"""Requests by category, and each category against the rest."""

from __future__ import annotations

import keyword
from collections.abc import Mapping, Sequence

from nnsteer.errors import UserError
from nnsteer.texts.contrast import ContrastSet, of_prompts
from nnsteer.texts.source import SPLITS, Prompt, Splits, divided, parse_source, read_rows

Groups = Mapping[str, Splits]
"""Prompts by category, or by kind."""


def load_categories(text: str, names: Sequence[str], seed: int) -> dict[str, Splits]:
    """The named categories of a SOURCE with the columns `prompt`, `category`, `base` (the request whose counterpart it is)
    and perhaps `split`; or, as CAST's data are published, with a column for each category. Bases without a split are divided by
    the seed. In every category, the i-th prompt of a split belongs to the same base. Raises UserError for a base without one."""
    source = parse_source(text)
    rows = read_rows(source)
    column = source.column or "prompt"
    bases: dict[str, dict[str, str]] = {}
    splits: dict[str, object] = {}
    for number, row in enumerate(rows, start=1):
        wide = "category" not in row
        base = f"of row {number}" if wide else str(row.get("base"))
        own = {name: row[name] for name in names if name in row} if wide else {row["category"]: row.get(column)}
        bases.setdefault(base, {}).update({name: prompt for name, prompt in own.items() if isinstance(prompt, str)})
        splits[base] = row.get("split")
    for base, own in bases.items():
        lacking = [name for name in names if not own.get(name, "").strip()]
        if lacking:
            raise UserError(f"data {text}, base {base}: has no prompt of {', '.join(lacking)}; every base needs one of each")
    placed = divided(list(bases.values()), list(splits.values()), seed)
    for split, part in placed.items():
        if not part:
            raise UserError(f"data {text}: no base left for its {split} split ({len(bases)} bases in all); give more")
    return {
        name: Splits(**{split: tuple(Prompt(own[name].strip(), name) for own in part) for split, part in placed.items()})
        for name in check_names(names)
    }


def by_kind(splits: Splits, kinds: Sequence[str]) -> dict[str, Splits]:
    """One side's prompts, kind by kind."""
    return {
        kind: Splits(**{split: tuple(p for p in getattr(splits, split) if p.kind == kind) for split in SPLITS})
        for kind in check_names(kinds)
    }


def check_names(names: Sequence[str]) -> Sequence[str]:
    """Refuses names that a rule can't hold."""
    for name in names:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise UserError(f"category {name!r}: rules need names of letters, digits and _; rename it in the data")
    return names


def one_against_rest(groups: Groups, target: str) -> ContrastSet:
    """The target's fit prompts, repeated once for each other category, each beside that category's (CAST section 5: 700 prompts
    repeated five times against 3,500)."""
    pairs = [
        pair for name, splits in groups.items() if name != target for pair in zip(groups[target].fit, splits.fit, strict=False)
    ]
    return of_prompts([own.text for own, _ in pairs], [other.text for _, other in pairs])
