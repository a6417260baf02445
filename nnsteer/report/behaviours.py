"""A behaviours run's summary, its tables in the terminal, its figures and its page. All is rebuilt from the run folder."""

from __future__ import annotations

from rich.table import Table

from nnsteer.folder import Folder
from nnsteer.measure.items import KEY
from nnsteer.report.behaviour_figures import pictures
from nnsteer.report.behaviour_summary import summarise
from nnsteer.report.look import encoded, ends, gap, number, plain_table, repeated, show, template
from nnsteer.report.pictures import Picture, draw

STAR = 0.05  # corrected p-values below it are starred
PAPER = (  # van der Weij et al. 2024, results published with the code (Llama 2 7B Chat, test split); not measured here
    ("myopic", 10, 0.283, 0.250, -1, 0.510, 10), ("myopic", 15, 0.283, 0.173, -1, 0.863, 2),
    ("wealth seeking", 10, 0.495, 0.228, -2, 0.621, 1), ("wealth seeking", 15, 0.495, 0.365, -2, 0.561, 1),
    ("sycophancy", 10, 0.583, 0.557, -20, 0.593, 1), ("sycophancy", 15, 0.583, 0.590, -5, 0.583, 2),
    ("agreeableness", 10, 0.923, 0.570, -3, 0.980, 0.5), ("agreeableness", 15, 0.923, 0.620, -1, 0.970, 0.5),
    ("anti-immigration", 10, 0.167, 0.050, -1, 0.540, 3), ("anti-immigration", 15, 0.167, 0.047, -0.5, 0.373, 1),
)  # fmt: skip
RAW = ("summary.json", "chosen.json", "grid.json", "sweep.json", "cosines.json", "rows.jsonl", "text_rows.jsonl")


def write(folder: Folder) -> dict:
    """Writes summary.json, the figures and report.html from what lies in the folder, prints the tables, and returns the
    summary."""
    summary = summarise(folder)
    folder.write_json("summary.json", summary)
    folder.write_text("report.html", page(folder, summary, draw(folder, pictures(folder, summary))))
    for heading, table in tables(summary).items():
        show(heading, table)
    print(f"{folder / 'report.html'}  the page with figures and every answer")
    return summary


def tables(summary: dict) -> dict[str, Table]:
    """The tables for the terminal, by heading."""
    alone = plain_table("", "unsteered", "subtract", "", "random", "add", "", "random")
    for name, own in summary["alone"].items():
        cells = [interval(own["baseline"])]
        for sign in ("-", "+"):
            way, cell = own[sign], own[sign]["test"]
            cells += [f"{interval(cell)}{star(cell)}{mark(cell)}", at(way), number(way["random"]["rate"], True)]
        alone.add_row(name, *cells)
    names = list(summary["alone"])
    together = plain_table("", *names)
    for variant, row in summary["together"].items():
        together.add_row(variant, *(f"{number(row[name]['rate'], True)}{star(row[name])}{mark(row[name])}" for name in names))
    text = plain_table("", "top-1", "against the unsteered model")
    for variant, cell in summary["text"].items():
        if variant in summary["others"] | summary["together"]:
            text.add_row(variant, number(cell["rate"], True), difference(cell))
    return {
        "Each alone: matching score on the test split; 95 % Wilson intervals, * p < 0.05 (Holm)": alone,
        "All together: matching score; MC mode collapse, F faulty answers": together,
        "General text: tokens ranked first": text,
    }


def interval(cell: dict) -> str:
    """`57.5 % [46.6, 67.7]`."""
    return f"{number(cell['rate'], True)} {ends(cell['low'], cell['high'], True)}"


def star(cell: dict) -> str:
    """A star for a difference from the unsteered model that holds for its whole family."""
    found = cell["against_baseline"]
    return "*" if found and found["p_holm"] is not None and found["p_holm"] < STAR else ""


def mark(cell: dict) -> str:
    """The paper's marks for a model that no longer chooses."""
    return (" MC" if cell["collapsed"] else "") + (" F" if cell["too_faulty"] else "")


def at(way: dict) -> str:
    """`layer 2, × -1.5`."""
    return f"layer {way['layer']}, × {way['coefficient']:g}" if way["coefficient"] else "nothing helps"


def difference(cell: dict) -> str:
    """`-1.2 points [-2.0, -0.5]`."""
    found = cell["against_baseline"]
    return f"{gap(found['value'], True)} {ends(found['low'], found['high'], True)}" if found else ""


def page(folder: Folder, summary: dict, drawn: list[Picture]) -> str:
    """The page's HTML, with the figures inside it."""
    config = folder.read_json("config.json")
    groups: dict[str, list[Picture]] = {}
    for picture in drawn:
        groups.setdefault(picture.group, []).append(picture)
    answers: dict[tuple[str, str], dict[str, dict]] = {}
    for row in folder.read_lines("rows.jsonl", KEY):
        answers.setdefault((row["behaviour"], row["prompt"]), {})[row["variant"]] = row
    return template("behaviours.html").render(
        summary=summary,
        config=config,
        command=repeated(config["command"]),
        groups=groups,
        images={picture.name: encoded(folder / "figures" / f"{picture.name}.png") for picture in drawn},
        answers=answers,
        interval=interval,
        star=star,
        mark=mark,
        at=at,
        difference=difference,
        paper=PAPER,
        raw=[file for file in RAW if folder.has(file)],
    )
