"""Two studies side by side: what was asked differently, and what came out differently, prompt by prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.report.look import ends, gap, number, plain_table, probability, show, template
from nnsteer.report.results import Cell, Results, Values, bare, holm_of, paired, read
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
    changed = plain_table("", "a", "b")
    for name, pair in found["settings"].items():
        changed.add_row(escape(name), *(escape(str(value)) for value in pair))
    show(f"a: {a.path}\nb: {b.path}\nSettings that differ", changed)
    differ = [cell for cell in found["cells"] if not cell["same"]]
    print(f"{len(found['cells']) - len(differ)} of {len(found['cells'])} cells are the same, prompt for prompt; of the others")
    show("b minus a on the prompts of both, 95 % intervals, p corrected by measure and set (Holm)", table(differ))
    for side in ("a", "b"):
        if alone := found[f"only_{side}"]:
            print(f"only in {side}: {len(alone)} of its cells, e.g. {', '.join(alone[0])}")
    if page is not None:
        Folder(page.parent).write_text(page.name, template("compare.html").render(found=found))
        print(f"{page}  the same as a page")
    return found


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
    """A row for each cell."""
    made = plain_table("variant", "set", "measure", "a", "b", "b - a", "", "")
    for cell in cells:
        found, binary = cell["difference"], cell["binary"]
        values = [f"{number(cell[side]['value'], binary)} {ends(cell[side]['low'], cell[side]['high'], binary)}" for side in "ab"]
        interval = ends(found["low"], found["high"], binary)
        names = [escape(cell[name]) for name in ("variant", "set", "measure")]
        made.add_row(*names, *values, gap(found["value"], binary), interval, probability(found["p_holm"]))
    return made
