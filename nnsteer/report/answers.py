"""Answers side by side: a row for each prompt, a column for each variant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nnsteer.report.section import Answer, Answers, Asked


def side_by_side(
    given: Iterable[tuple[str, str, str, Answer]], variants: Sequence[str], ring: str = ""
) -> Answers:
    """Answers given as (prompt, kind, variant, answer), gathered by prompt and kind in the order in
    which these first come; several of one variant stay together. `ring` says which are ringed."""
    rows: dict[tuple[str, str], dict[str, list[Answer]]] = {}
    for prompt, kind, variant, answer in given:
        rows.setdefault((kind, prompt), {}).setdefault(variant, []).append(answer)
    asked = [Asked(prompt, kind, answers) for (kind, prompt), answers in rows.items()]
    return Answers(variants, asked, ring)


def kind_of(prompts: str, kind: str) -> str:
    """`set: kind`, or the set where prompts have no kind."""
    return f"{prompts}: {kind}" if kind else prompts
