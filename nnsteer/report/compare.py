"""Two studies side by side: what was asked differently, and what came out differently, prompt by prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.report.look import STAR, difference, interval, star
from nnsteer.report.results import Cell, Results, Values, bare, holm_of, paired, read
from nnsteer.report.section import Page, Section, Table, html, tell
from nnsteer.statistics import estimate


def compare(a: Folder, b: Folder, page: Path | None = None) -> dict:
    """Prints which settings differ and every cell of both studies with its difference, b minus a; writes them as a page where
    `page` names one; and returns them. Raises UserError where the two have nothing in common."""
    one, two = read(a), read(b)
    found: dict[str, Any] = {
        "a": str(a.path),
        "b": str(b.path),
        "settings": differing(dict(settings(a, one)), dict(settings(b, two))),
        "only_a": [cell for cell in one.values if cell not in two.values],
        "only_b": [cell for cell in two.values if cell not in one.values],
        "cells": cells(one, two),
    }
    if not found["cells"]:
        raise UserError(f"{a.path} and {b.path}: have no variant, set and measure in common, on the same prompts; compare others")
    told = Page(f"{a.path} and {b.path}", lead(found), (f"a: {a.path}", f"b: {b.path}"), sections(found))
    tell(told)
    if page is not None:
        beside = Folder(page.parent)
        beside.write_text(page.name, html(told, beside, {}))
        print(f"{page}  the same as a page")
    return found


def lead(found: dict) -> str:
    """How much is the same, and how much differs beyond chance."""
    sure = sum(star(cell["difference"]) == "*" for cell in found["cells"])
    return (
        f"{len(found['settings'])} settings differ; {sum(cell['same'] for cell in found['cells'])} of "
        f"{len(found['cells'])} cells (a "
        f"variant, a set and a measure) are the same, prompt for prompt, and {sure} of the others differ beyond chance "
        f"(p < {STAR} after correction)."
    )


def sections(found: dict) -> list[Section]:
    """The page."""
    changed = [[name, *map(str, pair)] for name, pair in found["settings"].items()]
    differ = [cell for cell in found["cells"] if not cell["same"]]
    alone = [
        f"Only in {side}: {len(own)} of its cells, e.g. {', '.join(own[0])}." for side in "ab" if (own := found[f"only_{side}"])
    ]
    note = "b minus a on the prompts of both, prompt by prompt; p holds for all variants of a measure and set. Shaded: p < 0.05."
    return [
        Section("Settings that differ", () if changed else ("None.",), [Table(("", "a", "b"), changed)]),
        Section("Results", [note, *alone], [table(differ)], terms=("p", "interval")),
    ]


def settings(folder: Folder, results: Results) -> Iterator[tuple[str, object]]:
    """Everything that decides the results, by name."""
    config = folder.read_json("config.json")
    for heading in ("settings", "model", "data", "versions"):
        facts = config.get(heading, {})
        yield from (
            {f"{heading}: {name}": value for name, value in facts.items()} if isinstance(facts, dict) else {heading: facts}
        ).items()
    yield from ((f"measure {measure['name']}", measure["settings"]) for measure in results.study["measures"])
    yield from ((f"program {variant['name']}", variant["program"]) for variant in results.study["variants"])


def differing(a: dict, b: dict) -> dict[str, tuple]:
    """The entries that are not the same, None where one is missing. Programs and measures of one study alone are left out:
    their cells say so."""
    names = [name for name in {**a, **b} if (name in a and name in b) or not name.startswith(("program ", "measure "))]
    return {name: (a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)}


def cells(one: Results, two: Results) -> list[dict]:
    """Every variant, set and measure of both, on the prompts of both, and whether it is the same at every prompt. Each measure
    and set is a family for Holm's correction."""
    pairs = {cell: shared(values, two.values[cell]) for cell, values in one.values.items() if cell in two.values}
    pairs = {cell: pair for cell, pair in pairs.items() if pair[0]}
    families: dict[tuple[str, str], list[Cell]] = {}
    for cell in pairs:
        families.setdefault(cell[1:], []).append(cell)
    found = []
    for (prompts, measure), own in families.items():
        binary = one.measures[measure]
        differences = holm_of({cell[0]: paired(pairs[cell][1], pairs[cell][0], binary) for cell in own})
        for cell in own:
            a, b = (bare(asdict(estimate(list(side.values()), binary))) for side in pairs[cell])
            same = pairs[cell][0] == pairs[cell][1]
            names = {"variant": cell[0], "set": prompts, "measure": measure, "binary": binary, "same": same}
            found.append(names | {"a": a, "b": b, "difference": differences[cell[0]]})
    return found


def shared(a: Values, b: Values) -> tuple[Values, Values]:
    """Both on the prompts of both, in the order of the first."""
    both = [prompt for prompt in a if prompt in b]
    return {prompt: a[prompt] for prompt in both}, {prompt: b[prompt] for prompt in both}


def table(cells: list[dict]) -> Table:
    """A row for each cell; marked where the difference is beyond chance."""
    rows = [
        [
            cell["variant"],
            cell["set"],
            cell["measure"],
            *(interval(cell[side], cell["binary"]) for side in "ab"),
            difference(cell["difference"], cell["binary"]),
            f"{cell['difference']['n']}",
        ]
        for cell in cells
    ]
    sure = frozenset(i for i, cell in enumerate(cells) if star(cell["difference"]))
    return Table(("variant", "set", "measure", "a", "b", "b - a", "n"), rows, "The cells that are not the same", sure)
