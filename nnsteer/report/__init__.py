"""Rows to a summary, a table in the terminal, figures and a page. Everything is rebuilt from the run folder."""

from __future__ import annotations

from nnsteer.folder import Folder
from nnsteer.report.figures import draw
from nnsteer.report.look import show
from nnsteer.report.page import page
from nnsteer.report.summary import summarise, tables


def write(folder: Folder) -> dict:
    """Writes summary.json, the figures and report.html from what lies in the folder, prints the tables, and returns the
    summary."""
    summary = summarise(folder)
    folder.write_json("summary.json", summary)
    draw(folder, summary)
    folder.write_text("report.html", page(folder, summary))
    for heading, table in tables(summary).items():
        show(heading, table)
    print(f"{folder / 'report.html'}  the page with figures and every answer")
    return summary
