"""A study's summary, its tables in the terminal, its figures, and one self-contained page. All is rebuilt from the run folder."""

from __future__ import annotations

import json
import math

from rich.markup import escape
from rich.table import Table

from nnsteer.folder import Folder
from nnsteer.report.look import encoded, ends, gap, number, plain_table, repeated, show, template
from nnsteer.report.pictures import Picture, draw
from nnsteer.report.results import Results, by_cell, difference, read, summarise
from nnsteer.report.study_figures import pictures

STAR = 0.05  # corrected p-values below it are starred
RAW = ("summary.json", "study.json", "config.json", "rows.jsonl", "completions.jsonl")


def write(folder: Folder) -> dict:
    """Writes summary.json, the figures and report.html from what lies in the folder, prints the tables, and returns the
    summary. Raises UserError where the folder holds no study."""
    results = read(folder)
    summary = summarise(results)
    folder.write_json("summary.json", summary)
    folder.write_text("report.html", page(folder, results, summary, draw(folder, pictures(results, summary))))
    for measure in results.measures:
        heading = f"{measure}, with 95 % intervals; difference from the baseline, * p < {STAR} (Holm)"
        show(heading, table(results, summary, measure))
    if summary["recommended"]:
        print(f"Recommended: {summary['recommended']['variant'] or 'none'}. {summary['recommended']['why']}")
    print(f"{folder / 'report.html'}  the page with figures and every answer")
    return summary


def table(results: Results, summary: dict, measure: str) -> Table:
    """One measure for the terminal: variants down, sets across. The controls are on the page."""
    at, binary, made = by_cell(summary["cells"]), results.measures[measure], plain_table("", *map(escape, results.sets))
    for variant in (results.study["baseline"], *results.grid):
        words = []
        for prompts in results.sets:
            cell = at[variant, prompts, measure]
            found = cell["against_baseline"]
            more = f"  {gap(found['value'], binary)}{star(found)}" if found else ""
            words.append(f"{number(cell['value'], binary)} {ends(cell['low'], cell['high'], binary)}{more}")
        made.add_row(escape(variant), *words)
    return made


def star(found: dict) -> str:
    """A star for a difference that holds for its whole family."""
    return "*" if found["p_holm"] is not None and found["p_holm"] < STAR else " "


def page(folder: Folder, results: Results, summary: dict, drawn: list[Picture]) -> str:
    """The page's HTML, with the figures inside it."""
    config = folder.read_json("config.json")
    groups: dict[str, list[Picture]] = {}
    for picture in drawn:
        groups.setdefault(picture.group, []).append(picture)
    return template("study.html").render(
        name=folder.path.resolve().name,
        command=repeated(config["command"]),
        facts={heading: lines(config[heading]) for heading in ("settings", "model", "data", "versions") if heading in config},
        results=results,
        study=results.study,
        summary=summary,
        at=by_cell(summary["cells"]),
        star=star,
        difference=difference,
        groups=groups,
        images={picture.name: encoded(folder / "figures" / f"{picture.name}.png") for picture in drawn},
        answers=answers(results),
        raw=[file for file in (*RAW, *results.study["scores"].values(), *results.study["planes"].values()) if folder.has(file)],
    )


def lines(facts: object) -> list[str]:
    """`name = value` for each entry."""
    return [f"{name} = {json.dumps(value)}" for name, value in facts.items()] if isinstance(facts, dict) else [str(facts)]


def answers(results: Results) -> dict[tuple[str, str, str], list[dict]]:
    """By set, kind and prompt: every variant's answer and verdicts in the study's order, the baseline's first. An answer that is
    the baseline's word for word is left out, which keeps the page of a conditional study small."""
    baseline = results.study["baseline"]
    order = {variant: i for i, variant in enumerate(dict.fromkeys([baseline, *results.variants]))}
    found: dict[tuple[str, str, str], list[dict]] = {}
    for row in sorted((row for row in results.completions if row["variant"] in order), key=lambda row: order[row["variant"]]):
        own = found.setdefault((row["set"], row["kind"], row["prompt"]), [])
        first = own[0]["text"] if own and own[0]["variant"] == baseline else None
        verdicts = [verdict(results, row, measure, binary) for measure, binary in results.measures.items()]
        own.append(
            {
                "number": order[row["variant"]],
                "variant": row["variant"],
                "text": row["completion"],
                "same": row["completion"] == first,
                "verdicts": verdicts,
                "changed": any(v["changed"] for v in verdicts),
                "fired": ["fired" if fired else "did not fire" for fired in row.get("fired") or []],
                "scores": [f"{score:.3g}" for score in row.get("scores") or []],
            }
        )
    ranks = {prompts: i for i, prompts in enumerate(results.sets)}
    return dict(sorted(found.items(), key=lambda item: ranks.get(item[0][0], len(ranks))))


def verdict(results: Results, row: dict, measure: str, binary: bool) -> dict:
    """What a measure says of an answer, and whether that is a 0 where the baseline has a 1 or the other way round."""
    value, other = (
        results.values.get((variant, row["set"], measure), {}).get(row["prompt"], math.nan)
        for variant in (row["variant"], results.study["baseline"])
    )
    said = "failed" if math.isnan(value) else ("no", "yes")[int(value)] if binary else f"{value:.3g}"
    return {"measure": measure, "said": said, "yes": binary and value == 1, "changed": binary and abs(value - other) == 1}
