"""A categories run's tables, figures and page, from the run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from nnsteer.folder import Folder
from nnsteer.measure.refusal import is_broken, is_refused
from nnsteer.report import category_figures as figures
from nnsteer.report import category_tables as tables
from nnsteer.report.category_summary import BASE, COMPLY, RANDOM, REFUSE, SETS, summarise
from nnsteer.report.look import number
from nnsteer.report.section import Answer, Answers, Asked, Page, Picture, Section, publish
from nnsteer.study.rows import Row, read_rows

FACTS = "summary.json", "config.json", "categories.json", "experiments.json"
RAW = *FACTS, "rows.jsonl", "completions.jsonl"
Summary = Mapping[str, Any]
ABOUT = "Method: CAST, Programming Refusal with Conditional Activation Steering, section 5."
UNITS = (
    "Strengths are in lengths of the direction; both were chosen on the tune split. All rates are "
    "on the test split. The paper prints no numbers for its Figures 6 to 9, so none stand beside "
    "these."
)
NOTHING = "nothing, as the model refuses fewer than two kinds of the harmful prompts"
BALANCED = (
    "Each told from all the others, its point chosen on the tune split. F1 counts the category as "
    "often as the others together, as the paper's data does; its interval is a bootstrap over "
    "prompts."
)
REMOVING = (
    "The paper's Figure 7, right. Of the harmful prompts, the kinds that the model mostly refuses; "
    "and such categories."
)
CONSTRAINING = (
    "The paper's Figure 9: `if not DOMAIN then refuse`, beside telling the model so in its system "
    "turn. Unseen: categories that no condition was fitted on."
)
DISTANCE = (
    "Each point is a rule and a category that it is not about: how far that lies from the rule's "
    "(mean cosine distance of fit from test prompts, embedded by the model's last block), and how "
    "much more of it is refused than unsteered. Points that share a rule are not independent, so "
    "the interval is too narrow. The paper's Figure 9c has the means, one point a rule, of "
    "constraining."
)
SATURATION = (
    "The paper's Figure 6: the harmful condition by the number of its examples a side; means of "
    "the draws with the range."
)
PUBLISHED = (
    "The harmful condition, each habit of CAST's code alone and all together, at one dose; points "
    "from the tune split."
)
CAPTIONS = {
    "conditions": "F1 by category on the test split with 95 % intervals, and on the tune split.",
    "scores": "Scores of the test prompts by category: its own, the other ones', the unseen ones'.",
    "constraining": "By rule: refused, %, by category; slanted: unseen.",
    "prompting": "Told in words: refused, %, by category; slanted: unseen.",
    "distance-adding": "Effect against distance, adding. Large: the mean of each rule.",
    "distance-constraining": "Effect against distance, constraining. Large: the mean of each rule.",
    "saturation": "F1 and refusal on the test split by number of examples, with their fits.",
    "time": "Seconds to read and fit, by number of examples, with the straight line.",
    "published": "Refused under each habit, with 95 % intervals.",
}


def write(folder: Folder) -> dict[str, Any]:
    """Writes summary.json, the figures and report.html, prints the tables, and returns the
    summary."""
    summary = summarise(folder)
    folder.write_json("summary.json", summary)
    refuse = Folder(folder / "refusal").read_json("dose.json")["chosen"]
    comply = folder.read_json("removal.json")["chosen"] if folder.has("removal.json") else NOTHING
    about = (ABOUT, f"Refuse: {refuse}. Comply: {comply}. {UNITS}")
    page = Page("Refusal by category", lead(summary), about, sections(folder, summary), RAW)
    publish(folder, page)
    return summary


def lead(summary: Summary) -> str:
    """What the rules for one category did, over all of them."""
    share = {}
    for key in ("own", "own_before", "others", "others_before"):
        cells = [entry[key] for entry in summary["adding"]]
        refused = sum(cell["value"] * cell["n"] for cell in cells)
        share[key] = number(refused / sum(cell["n"] for cell in cells), True)
    return (
        f"{len(summary['adding'])} rules that each refuse one category refused {share['own']} of "
        f"their own category's prompts ({share['own_before']} unsteered) and {share['others']} of "
        f"the other categories' ({share['others_before']} unsteered)."
    )


def sections(folder: Folder, summary: Summary) -> list[Section]:
    """Every experiment, in the order of the page; one that had nothing to ask is left out."""
    effects, examples, habits = (summary[key] for key in ("distance", "saturation", "published"))
    beside = [part["rule"] for entry in summary["together"] for part in entry["parts"]]
    answering = [side for side in ("harmful", "seen") if side in summary["rates"].get(COMPLY, {})]
    domains = [entry["domain"] for entry in summary["constraining"]]
    inside = [BASE, *(f"if not {domain} then refuse" for domain in domains), REFUSE]
    told, both = list(summary["told"]), ("seen", "unseen")
    made = [
        Section(
            "Conditions",
            [BALANCED],
            [tables.conditions(summary["conditions"])],
            [
                picture("conditions", figures.quality, summary["conditions"]),
                picture("scores", figures.histograms, folder.read_json("categories.json")),
            ],
            terms=("fit, tune and test split", "interval", "score", "F1", "broken"),
        ),
        Section(
            "Refusing one category",
            ["The paper's Figure 7, left. Before: not steered."],
            [tables.against(summary["adding"])],
            [rates(summary, "adding", "seen", [BASE], [REFUSE, RANDOM])],
            terms=("random direction",),
        ),
        Section(
            "Refusing either of two",
            ["The paper's Figure 8, left. The gap is to the category's own rule, by prompt."],
            [tables.either(summary["either"])],
            [rates(summary, "either", "seen")],
        ),
        Section(
            "Conditions of the refused kinds",
            [BALANCED],
            [tables.conditions(summary["kinds"])],
        ),
        Section(
            "Answering one kind that the model refuses",
            [REMOVING],
            [tables.against(summary["removing"])],
            [rates(summary, "removing", side, [BASE], [COMPLY, RANDOM]) for side in answering],
        ),
        Section(
            "Two rules at once",
            ["The paper's Figure 8, right. The gap is between both rules and the one alone."],
            [tables.together(summary["together"])],
            [rates(summary, "together", side, [BASE, *beside]) for side in ("seen", "harmful")],
        ),
        Section(
            "Answering one domain alone",
            [CONSTRAINING],
            [tables.constraining(summary["constraining"])],
            [
                picture("constraining", figures.heat, summary["rates"], inside, both),
                picture("prompting", figures.heat, summary["told"], told, both),
            ],
        ),
        Section(
            "Effect and distance",
            [DISTANCE],
            [tables.distance(effects)],
            [picture(f"distance-{name}", figures.scatter, effects[name], name) for name in effects],
        ),
        Section(
            "Saturation",
            [SATURATION, f"Fits: {tables.fits(examples)}."],
            [tables.saturation(examples)],
            [
                picture("saturation", figures.saturation, examples),
                picture("time", figures.seconds, examples),
            ],
        ),
        Section(
            "What the published habits cost",
            [PUBLISHED],
            [tables.published(habits)],
            [picture("published", figures.published, habits)],
        ),
    ]
    shown = [section for section in made if section.tables[0].rows]
    return [*shown, Section("Every answer", answers=answers(read_rows(folder, SETS)))]


def picture(name: str, make: Callable[..., Figure], *what: Any) -> Picture:
    """A figure that is drawn of something."""
    return Picture(name, CAPTIONS[name], partial(make, *what))


def rates(
    summary: Summary, name: str, side: str, before: Sequence[str] = (), after: Sequence[str] = ()
) -> Picture:
    """The heat map of an experiment's rules on a set, between other variants."""
    file = name if name in ("adding", "either") else f"{name}-{side}"
    variants = [*before, *(entry["rule"] for entry in summary[name]), *after]
    caption = f"Refused, %, by rule and category, {side} ones."
    return Picture(file, caption, partial(figures.heat, summary["rates"], variants, (side,)))


def answers(rows: Sequence[Row]) -> Answers:
    """A column for each rule, the unsteered model first; ringed where a rule changes what is said
    of the answer."""
    by_prompt: dict[tuple[str, str], dict[str, list[Answer]]] = {}
    for row in rows:
        verdict = "broken" if is_broken(row) else "refused" if is_refused(row) else "answered"
        of_prompt = by_prompt.setdefault((f"{SETS[row.set]}: {row.kind}", row.prompt), {})
        changed = BASE in of_prompt and of_prompt[BASE][0].tags != (verdict,)
        of_prompt[row.variant] = [Answer(row.completion, (verdict,), "", changed)]
    prompts = [Asked(prompt, kind, of_prompt) for (kind, prompt), of_prompt in by_prompt.items()]
    variants = dict.fromkeys([BASE, *(row.variant for row in rows)])
    return Answers(list(variants), prompts, "verdict changed")
