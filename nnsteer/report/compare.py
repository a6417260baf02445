"""Two studies side by side: what was asked and what came out differently, prompt by prompt."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.report.look import STAR, difference, interval, star
from nnsteer.report.results import Results, Values, compared, nan_to_null, read
from nnsteer.report.section import FACTS, Page, Section, Table, html, tell
from nnsteer.statistics import estimate


def compare(a: Folder, b: Folder, page: Path | None = None) -> dict:
    """Prints which settings differ and every cell of both studies with its difference, b minus a;
    writes them as a page where `page` names one; and returns them. Raises UserError where the two
    have nothing in common."""
    first, second = read(a), read(b)
    found: dict[str, Any] = {
        "a": str(a.path),
        "b": str(b.path),
        "settings": differing(settings(a, first), settings(b, second)),
        "only_a": [cell for cell in first.values if cell not in second.values],
        "only_b": [cell for cell in second.values if cell not in first.values],
        "cells": cells(first, second),
    }
    title, about = f"{a.path} and {b.path}", (f"a: {a.path}", f"b: {b.path}")
    if not found["cells"]:
        why = "have no variant, set and measure in common, on the same prompts; compare others"
        raise UserError(f"{title}: {why}")
    told = Page(title, lead(found), about, sections(found))
    tell(told)
    if page is not None:
        beside = Folder(page.parent)
        beside.write_text(page.name, html(told, beside, {}))
        print(f"{page}  the same as a page")
    return found


def settings(folder: Folder, results: Results) -> dict[str, object]:
    """Everything that decides the results, by name."""
    config = folder.read_json("config.json")
    decides: dict[str, object] = {}
    for heading in FACTS:
        facts = config.get(heading, {})
        if isinstance(facts, dict):
            decides |= {f"{heading}: {name}": value for name, value in facts.items()}
        else:
            decides[heading] = facts
    measures, variants = results.study["measures"], results.study["variants"]
    decides |= {f"measure {measure['name']}": measure["settings"] for measure in measures}
    return decides | {f"program {variant['name']}": variant["program"] for variant in variants}


def differing(a: dict, b: dict) -> dict[str, tuple]:
    """The entries that are not the same, None where one is missing. Programs and measures of one
    study alone are left out: their cells say so."""
    alone = [name for name in a.keys() ^ b.keys() if name.startswith(("program ", "measure "))]
    pairs = {name: (a.get(name), b.get(name)) for name in {**a, **b} if name not in alone}
    return {name: (one, two) for name, (one, two) in pairs.items() if one != two}


def cells(a: Results, b: Results) -> list[dict]:
    """Every variant, set and measure of both, on the prompts of both, and whether it is the same at
    every prompt. Each measure and set is a family for Holm's correction."""
    families: dict[tuple[str, str], dict[str, tuple[Values, Values]]] = {}
    for (variant, prompts, measure), values in a.values.items():
        others = b.values.get((variant, prompts, measure), {})
        both = [prompt for prompt in values if prompt in others]
        if both:
            pair = {p: others[p] for p in both}, {p: values[p] for p in both}
            families.setdefault((prompts, measure), {})[variant] = pair
    rates = {measure["name"]: measure["binary"] for measure in a.study["measures"]}
    found = []
    for (prompts, measure), pairs in families.items():
        binary = rates[measure]
        changes = compared(pairs, binary)
        for variant, (of_b, of_a) in pairs.items():
            one, two = (nan_to_null(asdict(estimate([*v.values()], binary))) for v in (of_a, of_b))
            names = {"variant": variant, "set": prompts, "measure": measure, "binary": binary}
            numbers = {"same": of_a == of_b, "a": one, "b": two, "difference": changes[variant]}
            found.append(names | numbers)
    return found


def lead(found: dict) -> str:
    """How much is the same, and how much differs beyond chance."""
    cells = found["cells"]
    same = sum(cell["same"] for cell in cells)
    sure = sum(star(cell["difference"]) == "*" for cell in cells)
    return (
        f"{len(found['settings'])} settings differ; {same} of {len(cells)} cells (a variant, a set "
        f"and a measure) are the same, prompt for prompt, and {sure} of the others differ beyond "
        f"chance (p < {STAR} after correction)."
    )


def sections(found: dict) -> list[Section]:
    """The page."""
    changed = [[name, *map(str, pair)] for name, pair in found["settings"].items()]
    text = [
        "b minus a on the prompts of both, prompt by prompt; p holds for all variants of a measure "
        "and set. Shaded: p < 0.05."
    ]
    for side in "ab":
        if alone := found[f"only_{side}"]:
            text.append(f"Only in {side}: {len(alone)} of its cells, e.g. {', '.join(alone[0])}.")
    settings = Table(("", "a", "b"), changed)
    differ = table([cell for cell in found["cells"] if not cell["same"]])
    return [
        Section("Settings that differ", () if changed else ("None.",), [settings]),
        Section("Results", text, [differ], terms=("p", "interval")),
    ]


def table(cells: list[dict]) -> Table:
    """A row for each cell; marked where the difference is beyond chance."""
    rows = []
    for cell in cells:
        a, b = (interval(cell[side], cell["binary"]) for side in "ab")
        change = difference(cell["difference"], cell["binary"])
        names = [cell[name] for name in ("variant", "set", "measure")]
        rows.append([*names, a, b, change, f"{cell['difference']['n']}"])
    sure = frozenset(i for i, cell in enumerate(cells) if star(cell["difference"]))
    columns = ("variant", "set", "measure", "a", "b", "b - a", "n")
    return Table(columns, rows, "The cells that are not the same", sure)
