"""One self-contained HTML page: what was run, the tables, the figures, and every answer."""

from __future__ import annotations

from nnsteer.folder import Folder
from nnsteer.measure.answers import KEY
from nnsteer.report.look import encoded, repeated, template
from nnsteer.report.summary import LABELS, MEASURED, interval
from nnsteer.texts.bundled import bundled
from nnsteer.texts.refusal import SIDES

FIGURES = {
    "refusal": "Share of test prompts refused, with 95 % Wilson intervals. Hatched: broken answers, which count as neither.",
    "kinds": "The same by kind of prompt.",
    "condition": "Left: the condition's scores on the test prompts. Right: the sweep on the tune split that chose its point.",
    "dose": "The search on the tune split that chose reading window, layers and strength.",
}


def page(folder: Folder, summary: dict) -> str:
    """The page's HTML, with the figures inside it."""
    config = folder.read_json("config.json")
    answers: dict[tuple[str, str, str], dict[str, dict]] = {}
    for row in folder.read_lines("rows.jsonl", KEY):
        answers.setdefault((row["side"], row["kind"], row["prompt"]), {})[row["variant"]] = row
    return template("page.html").render(
        summary=summary,
        config=config,
        command=repeated(config["command"]),
        labels=LABELS,
        sides=SIDES,
        interval=interval,
        paper=bundled("cast_table3.jsonl"),
        measured=MEASURED,
        figures={name: (encoded(folder / "figures" / f"{name}.png"), caption) for name, caption in FIGURES.items()},
        answers=answers,
    )
