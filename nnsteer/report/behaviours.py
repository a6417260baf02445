"""A behaviours run's tables, figures and page. All is rebuilt from the run folder."""

from __future__ import annotations

from functools import partial

from nnsteer.folder import Folder
from nnsteer.measure.items import KEY
from nnsteer.report.behaviour_figures import alone, changes, cosines, grid, interference, sweep, tax
from nnsteer.report.behaviour_summary import summarise
from nnsteer.report.look import difference, ends, interval, number, star
from nnsteer.report.section import Answer, Answers, Asked, Page, Picture, Section, Table, file_name, publish

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
    both = summary["moved_both_ways"]
    lead = (
        f"{len(both)} of {len(summary['alone'])} directions move their behaviour by 20 points or more both ways on "
        f"the test split, and "
        f"leave a model that still chooses{': ' if both else ''}{', '.join(both)}; {simultaneous(summary)}"
    )
    about = (
        "Method: van der Weij et al. 2024, Extending Activation Steering to Broad Skills and Multiple Behaviours; directions by "
        "Contrastive Activation Addition: the mean difference of the two answers' activations, added times a coefficient.",
    )
    publish(folder, Page("Several behaviours at once", lead, about, sections(folder, summary), RAW))
    return summary


def simultaneous(summary: dict) -> str:
    """What steering them all at once did to the mean matching score."""

    def mean(variant: str) -> str:
        rates = [cell["rate"] for cell in summary["together"][variant].values()]
        return number(sum(rates) / len(rates), True)

    return (
        f"all added at once, the mean matching score went from {mean('baseline')} to {mean('simultaneous +')}, all subtracted at "
        f"once, to {mean('simultaneous -')}."
    )


def marked(cell: dict) -> str:
    """`57.5 %* MC`: a score with its star, and the paper's marks for a model that no longer chooses."""
    lost = (" MC" if cell["collapsed"] else "") + (" F" if cell["too_faulty"] else "")
    return f"{number(cell['rate'], True)}{star(cell['against_baseline'])}{lost}"


def scored(cell: dict) -> str:
    """The same with its interval."""
    return f"{marked(cell)} {ends(cell['low'], cell['high'], True)}"


def at(way: dict) -> str:
    """`layer 2, × -1.5`."""
    return f"layer {way['layer']}, × {way['coefficient']:g}" if way["coefficient"] else "nothing helps"


def sections(folder: Folder, summary: dict) -> list[Section]:
    """The page."""
    names, site, text = list(summary["alone"]), f"block_out[{summary['layer']}]", summary["text"]
    limit = folder.read_json("config.json")["settings"]["max_faulty"]
    points, cells = folder.read_json("sweep.json")["points"], folder.read_json("grid.json")["cells"]
    alone_rows = [
        [
            name,
            scored(own["baseline"]),
            *(part for way in (own["-"], own["+"]) for part in (scored(way["test"]), at(way), marked(way["random"]))),
            f"{own['baseline']['n']}",
        ]
        for name, own in summary["alone"].items()
    ]
    together = [
        [variant, *map(marked, row.values()), number(text[variant]["rate"], True), " / ".join(f"{c['n']}" for c in row.values())]
        for variant, row in summary["together"].items()
    ]
    taxes = [[variant, interval(cell), difference(cell["against_baseline"]), f"{cell['n']}"] for variant, cell in text.items()]
    layers = ", ".join(f"{name} {layer}" for name, layer in summary["layers"].items())
    close = ", ".join(f"{pair['first']} and {pair['second']} ({pair['cosine']:.2f})" for pair in summary["close"])
    warning = f"Directions that lie close at layer {summary['layer']}, so that steering one is likely to move the other: {close}."
    paper = [
        [name, f"{layer}", number(plain, True), f"{number(less, True)} (× {by})", f"{number(more, True)} (× {times})"]
        for name, layer, plain, less, by, more, times in PAPER
    ]
    table = (
        "Change of the matching score on the test split, in points: each row a way to steer, each column a behaviour. MC: mode "
        "collapse; F: faulty answers."
    )
    hollow = "Hollow: it no longer chooses (mode collapse, faulty answers)."
    return [
        Section(
            "Each alone",
            [f"Layer and coefficient were chosen on the tune split. F: more than {number(limit, True)} of the answers "
             f"are neither letter."],
            [Table(("", "unsteered", "subtracted", "", "random", "added", "", "random", "n"), alone_rows,
                   "Each alone: matching score on the test split, with 95 % intervals")],
            [Picture("alone", "Each behaviour under its own direction, with 95 % intervals. Hollow: random directions "
                              "of the same length.",
                     partial(alone, summary["alone"]))],
            terms=("matching score", "fit, tune and test split", "interval", "p", "random direction", "mode collapse (MC)"),
        ),
        Section(
            "All together",
            [f"Mean and sum: the directions combined into one at layer {summary['layer']}; weighted: each times the "
             f"coefficient that "
             f"served it best there. Simultaneous: each direction at its own layer ({layers}), times "
             f"{summary['scalars']['-']} and "
             f"{summary['scalars']['+']}. General text: share of tokens ranked first.", *([warning] if close else [])],
            [Table(("", *names, "general text", "n, items"), together, "All together: matching score; MC mode "
                                                                       "collapse, F faulty answers")],
            [Picture(name, f"{shows} {table}", partial(changes, summary[name], names))
             for name, shows in (("others", "Each direction on every behaviour."), ("together", "All together on "
                                                                                                "every behaviour."))],
        ),
        Section(
            "Interference", ["Directions that are not orthogonal can be expected to interfere: whether they did, on "
                             "the test split."], (),
            [Picture("cosines", f"Cosines of the directions at {site}.", partial(cosines, summary["cosines"][site], names)),
             Picture("interference", "Cosine of what is added with each other behaviour's direction, and the change "
                                     "of its score.",
                     partial(interference, summary["interference"]))],
            terms=("cosine",),
        ),
        Section(
            "Simultaneous steering", ["Every direction at its own layer, times one scalar."], (),
            [Picture("sweep", f"Matching score on the tune split by scalar. {hollow}", partial(sweep, points, names, limit)),
             Picture("tax", "Alignment tax: top-1 accuracy on general text by scalar, with its 95 % "
                            "interval.", partial(tax, points, text))],
        ),
        Section(
            "The grid", ["Every layer and coefficient that was tried."], (),
            [Picture(file_name("grid", name), f"{name}: matching score on the tune split, %. MC: mode collapse; F: "
                                              f"faulty answers; empty: "
                     "left out after them. Framed: chosen.",
                     partial(grid, name, [cell for cell in cells if cell["behaviour"] == name], summary["alone"][name], limit))
             for name in names],
        ),
        Section(
            "General text", [f"The alignment tax: share of tokens ranked first in {text['baseline']['n']} texts, and "
                             f"its change by "
                             "steering; 95 % bootstrap intervals over texts."],
            [Table(("", "tokens ranked first", "against the unsteered model", "n, texts"), taxes, "All ways to "
                                                                                                  "steer", folded=True)],
        ),
        Section(
            "For comparison: the paper's figures",
            ["Llama 2 7B Chat on the model-written evaluations, as published by van der Weij et al.; not measured here."],
            [Table(("", "layer", "unsteered", "subtracted", "added"), paper, "The paper's figures; not measured "
                                                                             "here", folded=True)],
        ),
        Section("Every answer", ["Black: the matching answer; grey: neither. The number is the margin of the matching "
                                 "answer, in logits."],
                answers=answers(folder)),
    ]  # fmt: skip


def answers(folder: Folder) -> Answers:
    """A column for each variant; ringed where another answer is given than by the unsteered model."""
    found: dict[tuple[str, str], dict[str, list[Answer]]] = {}
    rows = folder.read_lines("rows.jsonl", KEY)
    before = {(row["behaviour"], row["prompt"]): row["said"] for row in rows if row["variant"] == "baseline"}
    for row in rows:
        said = "matching" if row["said"] == row["matching"] else "other" if row["said"] == row["other"] else "neither"
        key = (row["behaviour"], row["prompt"])
        answer = Answer("", (f"{row['said']}: {said}",), f"{row['margin']:+.1f}", row["said"] != before.get(key, row["said"]))
        found.setdefault(key, {})[row["variant"]] = [answer]
    variants = dict.fromkeys(["baseline", *(row["variant"] for row in rows)])
    return Answers(
        list(variants), [Asked(prompt, behaviour, own) for (behaviour, prompt), own in found.items()], "answer changed"
    )
