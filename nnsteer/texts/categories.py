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
    """The named categories of a SOURCE with the columns `prompt`, `category`, `base` (the request
    whose counterpart it is) and perhaps `split`; or, as CAST's data are published, with a column
    for each category. Bases without a split are divided by the seed. In every category, the i-th
    prompt of a split belongs to the same base. Raises UserError for a base without one."""
    source = parse_source(text)
    column = source.column or "prompt"
    bases: dict[str, dict[str, str]] = {}
    splits: dict[str, object] = {}
    for number, row in enumerate(read_rows(source), start=1):
        if "category" in row:
            base, prompts = str(row.get("base")), {row["category"]: row.get(column)}
        else:
            base, prompts = f"of row {number}", {name: row.get(name) for name in names}
        texts = {
            name: prompt.strip() for name, prompt in prompts.items() if isinstance(prompt, str)
        }
        bases.setdefault(base, {}).update(texts)
        splits[base] = row.get("split")
    for base, texts in bases.items():
        if lacking := [name for name in names if not texts.get(name)]:
            mistake = f"has no prompt of {', '.join(lacking)}"
            raise UserError(f"data {text}, base {base}: {mistake}; every base needs one of each")
    placed = divided(list(bases.values()), list(splits.values()), seed)
    for split, part in placed.items():
        if not part:
            missing = f"no base left for its {split} split ({len(bases)} bases in all)"
            raise UserError(f"data {text}: {missing}; give more")
    categories = {}
    for name in check_names(names):
        parts = [[Prompt(texts[name], name) for texts in placed[split]] for split in SPLITS]
        categories[name] = Splits(*map(tuple, parts))
    return categories


def by_kind(splits: Splits, kinds: Sequence[str]) -> dict[str, Splits]:
    """One side's prompts, kind by kind."""
    groups = {}
    for kind in check_names(kinds):
        parts = [[p for p in splits.of(split) if p.kind == kind] for split in SPLITS]
        groups[kind] = Splits(*map(tuple, parts))
    return groups


def check_names(names: Sequence[str]) -> Sequence[str]:
    """Refuses names that a rule can't hold."""
    for name in names:
        if not name.isidentifier() or keyword.iskeyword(name):
            expected = "rules need names of letters, digits and _"
            raise UserError(f"category {name!r}: {expected}; rename it in the data")
    return names


def one_against_rest(groups: Groups, target: str) -> ContrastSet:
    """The target's fit prompts, repeated once for each other category, each beside that category's
    (CAST section 5: 700 prompts repeated five times against 3,500)."""
    others = [splits.fit for name, splits in groups.items() if name != target]
    pairs = [pair for fit in others for pair in zip(groups[target].fit, fit, strict=False)]
    return of_prompts([prompt.text for prompt, _ in pairs], [other.text for _, other in pairs])
