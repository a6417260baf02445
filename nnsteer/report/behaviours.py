"""A behaviours run's tables, figures and page. All is rebuilt from the run folder."""

from __future__ import annotations

from functools import partial
from statistics import fmean

from nnsteer.folder import Folder
from nnsteer.report import behaviour_figures as figure
from nnsteer.report import section
from nnsteer.report.behaviour_summary import read_choices, summarise
from nnsteer.report.look import difference, ends, interval, number, star
from nnsteer.report.section import Answer, Answers, Asked, Page, Picture, Section, Table
from nnsteer.study.cells import BASELINE
from nnsteer.texts.bundled import bundled

FACTS = ("summary.json", "chosen.json", "grid.json", "sweep.json", "cosines.json", "texts.json")
TERMS = ("matching score", "fit, tune and test split", "interval", "p", "random direction")
ABOUT = (
    "Method: van der Weij et al. 2024, Extending Activation Steering to Broad Skills and Multiple "
    "Behaviours; directions by Contrastive Activation Addition: the mean difference of the two "
    "answers' activations, added times a coefficient."
)
LEAD = (
    "{moved} of {all} directions move their behaviour by 20 points or more both ways on the test "
    "split, and leave a model that still chooses{names}; all added at once, the mean matching "
    "score went from {plain} to {added}, all subtracted at once, to {subtracted}."
)
CHOSEN = (
    "Layer and coefficient were chosen on the tune split. F: more than {} of the answers are "
    "neither letter."
)
ALONE = (
    "Each behaviour under its own direction, with 95 % intervals. Hollow: random directions of the "
    "same length."
)
TOGETHER = (
    "Mean and sum: the directions combined into one at layer {layer}; weighted: each times the "
    "coefficient that served it best there. Simultaneous: each direction at its own layer "
    "({layers}), times {less} and {more}. General text: share of tokens ranked first."
)
CHANGES = (
    "{} on every behaviour: change of the matching score on the test split, in points; each row a "
    "way to steer, each column a behaviour. MC: mode collapse; F: faulty answers."
)
CLOSE = (
    "Directions that lie close at layer {}, so that steering one is likely to move the other: {}."
)
MAY_INTERFERE = (
    "Directions that are not orthogonal can be expected to interfere: whether they did, on the "
    "test split."
)
INTERFERENCE = (
    "Cosine of what is added with each other behaviour's direction, and the change of its score."
)
SWEEP = (
    "Matching score on the tune split by scalar. Hollow: it no longer chooses (mode collapse, "
    "faulty answers)."
)
TAX = "Alignment tax: top-1 accuracy on general text by scalar, with its 95 % interval."
GRID = (
    "{}: matching score on the tune split, %. MC: mode collapse; F: faulty answers; empty: left "
    "out after them. Framed: chosen."
)
TEXT = (
    "The alignment tax: share of tokens ranked first in {} texts, and its change by steering; 95 % "
    "bootstrap intervals over texts."
)
PAPER = (
    "Llama 2 7B Chat on the model-written evaluations, as published by van der Weij et al.; not "
    "measured here."
)
ANSWERS = (
    "Black: the matching answer; grey: neither. The number is the margin of the matching answer, "
    "in logits."
)


def write(folder: Folder) -> dict:
    """Writes summary.json, the figures and report.html from what lies in the folder, prints the
    tables, and returns the summary."""
    summary = summarise(folder)
    folder.write_json("summary.json", summary)
    parts, raw = sections(folder, summary), (*FACTS, "rows.jsonl")
    section.publish(folder, Page("Several behaviours at once", lead(summary), (ABOUT,), parts, raw))
    return summary


def lead(summary: dict) -> str:
    """What was found."""
    moved, mean = summary["moved_both_ways"], {}
    for variant, cells in summary["together"].items():
        mean[variant] = number(fmean(cell["rate"] for cell in cells.values()), True)
    return LEAD.format(
        moved=len(moved),
        all=len(summary["alone"]),
        names=f": {', '.join(moved)}" if moved else "",
        plain=mean[BASELINE],
        added=mean["simultaneous +"],
        subtracted=mean["simultaneous -"],
    )


def sections(folder: Folder, summary: dict) -> list[Section]:
    """The page."""
    limit = folder.read_json("config.json")["settings"]["max_faulty"]
    points, cells = folder.read_json("sweep.json")["points"], folder.read_json("grid.json")["cells"]
    alone, text, names = summary["alone"], summary["text"], list(summary["alone"])
    site = f"block_out[{summary['layer']}]"
    cosines = partial(figure.cosines, summary["cosines"][site], names)
    changes = [
        Picture(part, CHANGES.format(what), partial(figure.changes, summary[part], names))
        for part, what in (("others", "Each direction"), ("together", "All together"))
    ]
    grids = []
    for name in names:
        make = partial(figure.grid, name, cells, alone[name], limit)
        grids.append(Picture(section.file_name("grid", name), GRID.format(name), make))
    return [
        Section(
            "Each alone",
            [CHOSEN.format(number(limit, True))],
            [alone_table(alone)],
            [Picture("alone", ALONE, partial(figure.alone, alone))],
            terms=(*TERMS, "mode collapse (MC)"),
        ),
        Section("All together", together_text(summary), [together_table(summary)], changes),
        Section(
            "Interference",
            [MAY_INTERFERE],
            figures=[
                Picture("cosines", f"Cosines of the directions at {site}.", cosines),
                Picture("interference", INTERFERENCE, partial(figure.interference, summary)),
            ],
            terms=("cosine",),
        ),
        Section(
            "Simultaneous steering",
            ["Every direction at its own layer, times one scalar."],
            figures=[
                Picture("sweep", SWEEP, partial(figure.sweep, points, names, limit)),
                Picture("tax", TAX, partial(figure.tax, points, text)),
            ],
        ),
        Section("The grid", ["Every layer and coefficient that was tried."], figures=grids),
        Section("General text", [TEXT.format(text[BASELINE]["n"])], [text_table(text)]),
        Section("For comparison: the paper's figures", [PAPER], [paper()]),
        Section("Every answer", [ANSWERS], answers=answers(folder, names)),
    ]


def alone_table(alone: dict) -> Table:
    """Every behaviour under its own direction."""
    rows = []
    for name, ways in alone.items():
        cells = [name, scored(ways["baseline"])]
        for way in (ways["-"], ways["+"]):
            cells += [scored(way["test"]), at(way), marked(way["random"])]
        rows.append([*cells, f"{ways['baseline']['n']}"])
    columns = ("", "unsteered", "subtracted", "", "random", "added", "", "random", "n")
    return Table(columns, rows, "Each alone: matching score on the test split, with 95 % intervals")


def together_text(summary: dict) -> list[str]:
    """What was combined, and which directions lie close."""
    layer, scalars = summary["layer"], summary["scalars"]
    layers = ", ".join(f"{name} {own_layer}" for name, own_layer in summary["layers"].items())
    text = TOGETHER.format(layer=layer, layers=layers, less=scalars["-"], more=scalars["+"])
    pair = "{first} and {second} ({cosine:.2f})".format
    close = ", ".join(pair(**directions) for directions in summary["close"])
    return [text, CLOSE.format(layer, close)] if close else [text]


def together_table(summary: dict) -> Table:
    """Every combination on every behaviour, and on general text."""
    rows = []
    for variant, cells in summary["together"].items():
        text = number(summary["text"][variant]["rate"], True)
        n = " / ".join(f"{cell['n']}" for cell in cells.values())
        rows.append([variant, *map(marked, cells.values()), text, n])
    columns = ("", *summary["alone"], "general text", "n, items")
    return Table(columns, rows, "All together: matching score; MC mode collapse, F faulty answers")


def text_table(text: dict) -> Table:
    """The alignment tax of every way to steer."""
    rows = [
        [variant, interval(cell), difference(cell["against_baseline"]), f"{cell['n']}"]
        for variant, cell in text.items()
    ]
    columns = ("", "tokens ranked first", "against the unsteered model", "n, texts")
    return Table(columns, rows, "All ways to steer", folded=True)


def paper() -> Table:
    """What the paper's authors published."""
    rows = []
    for row in bundled("behaviours_table.jsonl"):
        cells = [row["behaviour"], f"{row['layer']}", number(row["unsteered"], True)]
        for rate, coefficient in (row["subtracted"], row["added"]):
            cells.append(f"{number(rate, True)} (× {coefficient})")
        rows.append(cells)
    columns = ("", "layer", "unsteered", "subtracted", "added")
    return Table(columns, rows, "The paper's figures; not measured here", folded=True)


def marked(cell: dict) -> str:
    """`57.5 %* MC`: a score with its star, and the paper's marks where the model doesn't choose."""
    lost = (" MC" if cell["collapsed"] else "") + (" F" if cell["too_faulty"] else "")
    return f"{number(cell['rate'], True)}{star(cell['against_baseline'])}{lost}"


def scored(cell: dict) -> str:
    """The same with its interval."""
    return f"{marked(cell)} {ends(cell['low'], cell['high'], True)}"


def at(way: dict) -> str:
    """`layer 2, × -1.5`."""
    if not way["coefficient"]:
        return "nothing helps"
    return f"layer {way['layer']}, × {way['coefficient']:g}"


def answers(folder: Folder, names: list[str]) -> Answers:
    """A column for each variant; ringed where another answer is given than without steering."""
    choices = read_choices(folder, names)
    asked: dict[tuple[str, str], dict[str, list[Answer]]] = {}
    for (variant, name), by_prompt in choices.items():
        for prompt, choice in by_prompt.items():
            said, plain = choice["said"], choices[BASELINE, name][prompt]["said"]
            words = {choice["other"]: "other", choice["matching"]: "matching"}
            tag = f"{said}: {words.get(said, 'neither')}"
            answer = Answer("", (tag,), f"{choice['margin']:+.1f}", said != plain)
            asked.setdefault((name, prompt), {})[variant] = [answer]
    variants = list(dict.fromkeys(variant for variant, _ in choices))
    rows = [Asked(prompt, name, given) for (name, prompt), given in asked.items()]
    return Answers(variants, rows, "answer changed")
