"""A categories run's tables, figures and page, from the run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from nnsteer.folder import Folder
from nnsteer.measure.answers import KEY
from nnsteer.report import category_tables as tables
from nnsteer.report.category_figures import heat, histograms, published, quality, saturation, scatter, seconds
from nnsteer.report.category_summary import BASE, COMPLY, RANDOM, REFUSE, summarise
from nnsteer.report.look import number
from nnsteer.report.section import Answer, Answers, Asked, Page, Picture, Section, publish

RAW = ("summary.json", "config.json", "categories.json", "experiments.json", "rows.jsonl", "prompting.jsonl")
Summary = Mapping[str, Any]


def write(folder: Folder) -> dict[str, Any]:
    """Writes summary.json, the figures and report.html, prints the tables, and returns the summary."""
    summary = summarise(folder)
    folder.write_json("summary.json", summary)
    dose = Folder(folder / "refusal").read_json("dose.json")["chosen"]
    removal = folder.read_json("removal.json")["chosen"] if folder.has("removal.json") else None
    about = (
        "Method: CAST, Programming Refusal with Conditional Activation Steering, section 5.",
        f"Refuse: {dose}. Comply: "
        f"{removal or 'nothing, as the model refuses fewer than two kinds of the harmful prompts'}. Strengths "
        "are in lengths of the direction; both were chosen on the tune split. All rates are on the test split. The "
        "paper prints no "
        "numbers for its Figures 6 to 9, so none stand beside these.",
    )
    publish(folder, Page("Refusal by category", lead(summary), about, sections(folder, summary), RAW))
    return summary


def lead(summary: Summary) -> str:
    """What the rules for one category did, over all of them."""

    def pooled(key: str) -> str:
        cells = [entry[key] for entry in summary["adding"]]
        return number(sum(cell["value"] * cell["n"] for cell in cells) / sum(cell["n"] for cell in cells), True)

    return (
        f"{len(summary['adding'])} rules that each refuse one category refused {pooled('own')} of their own category's prompts "
        f"({pooled('own_before')} unsteered) and {pooled('others')} of the other categories' "
        f"({pooled('others_before')} unsteered)."
    )


def sections(folder: Folder, summary: Summary) -> list[Section]:
    """Every experiment, in the order of the page."""
    made = [
        Section(
            "Conditions", [tables.BALANCED], [tables.conditions(summary["conditions"])],
            [Picture("conditions", "F1 by category on the test split with 95 % intervals, and on the tune split.",
                     partial(quality, summary["conditions"])),
             Picture("scores", "Scores of the test prompts by category: its own, the other ones', the unseen ones'.",
                     partial(histograms, folder.read_json("categories.json")))],
            terms=("fit, tune and test split", "interval", "score", "F1", "broken"),
        ),
        Section("Refusing one category", ["The paper's Figure 7, left. Before: not steered."], [tables.one(summary["adding"])],
                maps(summary, "adding", [BASE, *rules(summary, "adding"), REFUSE, RANDOM], ("seen",)),
                terms=("random direction",)),
        Section("Refusing either of two", ["The paper's Figure 8, left. The gap is to the category's own rule, by prompt."],
                [tables.either(summary["either"])], maps(summary, "either", rules(summary, "either"), ("seen",))),
    ]  # fmt: skip
    if summary["kinds"]:
        made.append(Section("Conditions of the refused kinds", [tables.BALANCED], [tables.conditions(summary["kinds"])]))
    if summary["removing"]:
        note = (
            "The paper's Figure 7, right. Of the harmful prompts, the kinds that the model mostly refuses; and such categories."
        )
        removing = [BASE, *rules(summary, "removing"), COMPLY, RANDOM]
        drawn = [
            m
            for side in ("harmful", "seen")
            if side in summary["rates"][COMPLY]
            for m in maps(summary, "removing", removing, (side,))
        ]
        made.append(Section("Answering one kind that the model refuses", [note], [tables.one(summary["removing"])], drawn))
    if summary["together"]:
        note = "The paper's Figure 8, right. The gap is between both rules and the one alone."
        names = [BASE, *(part["rule"] for entry in summary["together"] for part in entry["parts"]), *rules(summary, "together")]
        drawn = [m for side in ("seen", "harmful") for m in maps(summary, "together", names, (side,))]
        made.append(Section("Two rules at once", [note], [tables.together(summary["together"])], drawn))
    domains = [entry["domain"] for entry in summary["constraining"]]
    both, inside = ("seen", "unseen"), [BASE, *(f"if not {domain} then refuse" for domain in domains), REFUSE]
    told = partial(heat, summary["told"], [f"told: only {domain}" for domain in domains], both)
    number_of = summary["saturation"]
    made += [
        Section(
            "Answering one domain alone",
            ["The paper's Figure 9: `if not DOMAIN then refuse`, beside telling the model so in its system turn. "
             "Unseen: categories "
             "that no condition was fitted on."],
            [tables.constraining(summary["constraining"])],
            [Picture("constraining", "By rule: refused, %, by category; slanted: unseen.",
                     partial(heat, summary["rates"], inside, both)),
             Picture("prompting", "Told in words: refused, %, by category; slanted: unseen.", told)],
        ),
        Section(
            "Effect and distance",
            ["Each point is a rule and a category that it is not about: how far that lies from the rule's (mean "
             "cosine distance of "
             "fit from test prompts, embedded by the model's last block), and how much more of it is refused than "
             "unsteered. Points "
             "that share a rule are not independent, so the interval is too narrow. The paper's Figure 9c has the "
             "means, one point a "
             "rule, of constraining."],
            [tables.distance(summary["distance"])],
            [Picture(f"distance-{name}", f"Effect against distance, {name}. Large: the mean of each "
                                         f"rule.", partial(scatter, found, name))
             for name, found in summary["distance"].items()],
        ),
        Section(
            "Saturation",
            ["The paper's Figure 6: the harmful condition by the number of its examples a side; means of the draws "
             "with the range.",
             f"Fits: {tables.fits(number_of)}."],
            [tables.saturation(number_of)],
            [Picture("saturation", "F1 and refusal on the test split by number of examples, with their "
                                   "fits.", partial(saturation, number_of)),
             Picture("time", "Seconds to read and fit, by number of examples, with the straight "
                             "line.", partial(seconds, number_of))],
        ),
    ]  # fmt: skip
    if summary["published"]:
        note = "The harmful condition, each habit of CAST's code alone and all together, at one dose; points from the tune split."
        drawn = [Picture("published", "Refused under each habit, with 95 % intervals.", partial(published, summary["published"]))]
        made.append(Section("What the published habits cost", [note], [tables.published(summary["published"])], drawn))
    return [*made, Section("Every answer", answers=answers(folder))]


def rules(summary: Summary, experiment: str) -> list[str]:
    """The variants of an experiment."""
    return [entry["rule"] for entry in summary[experiment]]


def maps(summary: Summary, name: str, variants: Sequence[str], sides: tuple[str, ...]) -> list[Picture]:
    """The heat map of an experiment on some sets; named after the set where an experiment has several."""
    file = name if name in ("adding", "either") else f"{name}-{sides[0]}"
    caption = f"Refused, %, by rule and category, {' and '.join(sides)} ones."
    return [Picture(file, caption, partial(heat, summary["rates"], variants, sides))]


def answers(folder: Folder) -> Answers:
    """A column for each rule, the unsteered model first; ringed where a rule changes what is said of the answer."""
    found: dict[tuple[str, str, str], dict[str, list[Answer]]] = {}
    variants = {BASE: None}
    for name in ("rows.jsonl", "prompting.jsonl"):
        for row in folder.read_lines(name, KEY):
            said = "broken" if row["broken"] else "refused" if row["refused"] else "answered"
            variants[row["variant"]] = None
            own = found.setdefault((row["side"], row["kind"], row["prompt"]), {})
            own[row["variant"]] = [Answer(row["completion"], (said,), "", BASE in own and own[BASE][0].tags != (said,))]
    asked = [Asked(prompt, f"{side}: {kind}", own) for (side, kind, prompt), own in found.items()]
    return Answers(list(variants), asked, "verdict changed")
