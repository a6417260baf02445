"""A categories run's summary, its tables in the terminal, its figures and one self-contained page, from the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape

from nnsteer.folder import Folder
from nnsteer.report.category_figures import pictures
from nnsteer.report.category_summary import summarise
from nnsteer.report.category_tables import Section, sections
from nnsteer.report.look import encoded, plain_table, repeated, show, template
from nnsteer.report.pictures import Picture, draw

Told = dict[tuple[str, str, str], dict[tuple[str, str], list[str]]]
"""For each prompt (set, category, text) every distinct answer (verdict, text) with the variants that gave it."""


def write(folder: Folder) -> dict[str, Any]:
    """Writes summary.json, the figures and report.html, prints the tables, and returns the summary."""
    summary = summarise(folder)
    folder.write_json("summary.json", summary)
    drawn = draw(folder, pictures(summary, folder.read_json("categories.json")))
    told = list(sections(summary))
    folder.write_text("report.html", page(folder, summary, told, drawn))
    for section in told:
        table = plain_table(*section.columns)
        for row in section.rows:
            table.add_row(*map(escape, row))
        show(f"{section.title}. {section.note}", table)
    print(f"{folder / 'report.html'}  the page with figures and every answer")
    return summary


def page(folder: Folder, summary: dict[str, Any], told: Sequence[Section], drawn: Sequence[Picture]) -> str:
    """The page's HTML, with the figures inside it."""
    config = folder.read_json("config.json")
    return template("categories.html").render(
        sections=told,
        config=config,
        command=repeated(config["command"]),
        dose=Folder(folder / "refusal").read_json("dose.json")["chosen"],
        removal=folder.read_json("removal.json")["chosen"] if folder.has("removal.json") else None,
        figures={
            key: [(encoded(folder / "figures" / f"{p.name}.png"), p.shows) for p in drawn if p.group == key]
            for key in dict.fromkeys(picture.group for picture in drawn)
        },
        seconds=summary["seconds"],
        answers=answers(folder),
    )


def answers(folder: Folder) -> Told:
    """What was answered; most variants give one of two answers to a prompt."""
    found: Told = {}
    for name in ("rows.jsonl", "prompting.jsonl"):
        for row in folder.read_lines(name):
            verdict = "broken" if row["broken"] else "refused" if row["refused"] else "answered"
            own = found.setdefault((row["side"], row["kind"], row["prompt"]), {})
            own.setdefault((verdict, row["completion"]), []).append(row["variant"])
    return found
