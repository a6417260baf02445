"""What a skills run found: its rows to a summary, tables, figures and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from nnsteer.folder import Folder
from nnsteer.measure import tradeoff
from nnsteer.measure.tradeoff import CHOSEN, DRAWS, MATCHED, PERMUTED, TradeOff, gap, kept_at
from nnsteer.report.look import NONE, difference, interval, number
from nnsteer.report.section import Page, Picture, Section, Table, publish
from nnsteer.report.skills_figures import by_place, coefficients, trade_off
from nnsteer.study.rows import read_rows
from nnsteer.study.table import null_for_nan
from nnsteer.texts.bundled import bundled
from nnsteer.texts.skills import DOMAINS

LEVELS = ("0.9", "0.8", "0.5")
MARKED = [f"T@{level}" for level in LEVELS]
TOPS = {"top1": "top-1", "top10": "top-10"}
RAW = ("summary.json", "config.json", "choice.json", "variants.json", "rows.jsonl")
ABOUT = (
    "Skill: {}. To be retained: {}. Method: Extending Activation Steering to Broad Skills and "
    "Multiple Behaviours (arXiv 2403.05767): the mean activation on the documents to be retained "
    "minus the one on the skill's, times a coefficient, is added to every token."
)
RETAINED = (
    "Accuracy of next-token prediction, relative to the unsteered model. A dash: the skill never "
    "falls so far. Intervals: 95 %, from drawing documents anew."
)
CONTROLS = (
    "The permuted controls, at {}, shuffle the entries of both means, as published and cut to the "
    f"direction's length; the documents take {DRAWS} permutations in turn."
)
DRIFTING = (
    "As published, each coefficient saw other documents than the one before; shares above 100 % "
    "come from that."
)
PROGRAMS = (
    "nnsteer generate --programs with this folder steers at the chosen coefficient (variant "
    "steered)."
)
KEPT = (
    "T@0.9 by place, with 95 % intervals. Orange: the best on the tune split. Grey: the permuted "
    "controls."
)
DIAGONAL = (
    "{} accuracy as a share of the unsteered model's, a point for each coefficient. Above the "
    "diagonal, steering takes more of the skill than of the rest. Grey: the permuted controls at "
    "the best place."
)
CURVES = (
    "Top-1 accuracy by coefficient, a colour for each place. Solid: the skill. Dashed: the rest."
)
PAPER = (
    "Llama 2 7B on the Pile and CodeParrot, computed from the result files that the paper's "
    "authors published; not measured here."
)


def write(folder: Folder) -> dict:
    """Writes summary.json, the figures and report.html from what lies in the folder, prints the
    tables, and returns the summary."""
    summary, settings = summarise(folder), folder.read_json("config.json")["settings"]
    folder.write_json("summary.json", summary)
    skill, rest = (", ".join(settings[domain]) for domain in DOMAINS)
    choice, chosen = summary["choice"], summary["chosen"]
    lead = (
        f"Steering at {choice['best']} with coefficient {choice['coefficient']:.2f}, chosen to "
        f"leave 90 % of the skill, left {interval(chosen['skill'])} of the model's accuracy on "
        f"{skill} and {interval(chosen['retained'])} of that on the rest."
    )
    parts = sections(summary, settings["drifting"])
    publish(folder, Page("Broad skills", lead, [ABOUT.format(skill, rest)], parts, RAW))
    return summary


def summarise(folder: Folder) -> dict:
    """The content of summary.json. A value that could not be had is null."""
    rows = read_rows(folder, [f"{domain} test" for domain in DOMAINS])
    axes, choice = folder.read_json("variants.json"), folder.read_json("choice.json")
    top1, top10 = (tradeoff.trade_offs(rows, axes, "test", top) for top in TOPS)
    chosen, best = top1.pop(CHOSEN), choice["best"]
    others = {place: top1[place] for place in (choice["worst"], PERMUTED, MATCHED) if place != best}
    return {
        "baseline": {
            "skill": baseline(top1[best].skill, top10[best].skill),
            "retained": baseline(top1[best].retained, top10[best].retained),
        },
        "choice": choice,
        "chosen": {
            "skill": cell(chosen, lambda skill, _: skill[..., -1]),
            "retained": cell(chosen, lambda _, retained: retained[..., -1]),
        },
        "variants": {place: variant(table, top10[place]) for place, table in top1.items()},
        "comparisons": {
            place: {
                "T@0.9": cell(top1[best], kept_at(0.9), other),
                "gap": cell(top1[best], gap, other),
            }
            for place, other in others.items()
        },
        "seconds": folder.read_json("seconds.json"),
    }


def baseline(top1: tradeoff.Counts, top10: tradeoff.Counts) -> dict:
    """The unsteered model's accuracy on one domain."""
    shares = {"top1": float(top1.accuracy()[0]), "top10": float(top10.accuracy()[0])}
    return shares | {"tokens": int(top1.tokens[0].sum()), "documents": top1.tokens.shape[1]}


def variant(top1: TradeOff, top10: TradeOff) -> dict:
    """One place: what steering there retains, and its curve."""
    columns: dict[str, Sequence] = {"coefficient": top1.coefficients}
    for top, table in zip(TOPS, (top1, top10), strict=True):
        columns[f"skill_{top}"] = table.skill.relative().tolist()
        columns[f"retained_{top}"] = table.retained.relative().tolist()
    steps = zip(*columns.values(), strict=True)
    return {
        "kept": {level: cell(top1, kept_at(float(level))) for level in LEVELS},
        "gap": cell(top1, gap),
        "top10": {"kept": {"0.9": cell(top10, kept_at(0.9))}, "gap": cell(top10, gap)},
        "coefficient": null_for_nan(top1.at(0.9).coefficient),
        "curve": [dict(zip(columns, step, strict=True)) for step in steps],
    }


def cell(of: TradeOff, summary: tradeoff.Summary, minus: TradeOff | None = None) -> dict:
    """An estimate as JSON holds it."""
    estimate = asdict(tradeoff.estimate(of, summary, minus))
    return {name: null_for_nan(value) for name, value in estimate.items()}


def sections(summary: dict, drifting: bool) -> list[Section]:
    """The page."""
    best = summary["choice"]["best"]
    across = [
        Picture(f"trade-off-{name}", DIAGONAL.format(name), partial(trade_off, summary, top))
        for top, name in TOPS.items()
    ]
    return [
        Section(
            "The unsteered model",
            ["On the test split."],
            [unsteered(summary["baseline"])],
            terms=("fit, tune and test split", "top-1, top-10"),
        ),
        Section(
            "What is retained",
            [RETAINED, CONTROLS.format(best), *([DRIFTING] if drifting else [])],
            retained(summary),
            [
                Picture("kept", KEPT, partial(by_place, summary, "T@0.9")),
                Picture("gap", "The gap by place, likewise.", partial(by_place, summary, "gap")),
            ],
            terms=("T@x", "gap"),
        ),
        Section(
            "Skill against the rest",
            [PROGRAMS],
            figures=[*across, Picture("coefficients", CURVES, partial(coefficients, summary))],
        ),
        Section("For comparison: the paper's figures", [PAPER], [paper()]),
    ]


def unsteered(baseline: dict) -> Table:
    """Accuracy before steering."""
    rows = []
    for domain, cell in baseline.items():
        shares = [number(cell[top], True) for top in TOPS]
        rows.append([domain, *shares, f"{cell['tokens']}", f"{cell['documents']}"])
    return Table(("", *TOPS.values(), "tokens", "n, documents"), rows)


def retained(summary: dict) -> list[Table]:
    """What every place retains, how far the best one is ahead, and what its dose does. n counts
    documents."""
    choice, chosen = summary["choice"], summary["chosen"]
    best, n = choice["best"], f"{min(cell['documents'] for cell in summary['baseline'].values())}"
    marks = {choice["worst"]: " (worst on tune)", best: " (best on tune)"}
    places = [
        [
            place + marks.get(place, ""),
            interval(cell["kept"]["0.9"]),
            *(number(cell["kept"][level]["value"], True) for level in LEVELS[1:]),
            interval(cell["gap"]),
            NONE if cell["coefficient"] is None else f"{cell['coefficient']:.2f}",
            interval(cell["top10"]["kept"]["0.9"]),
            interval(cell["top10"]["gap"]),
            n,
        ]
        for place, cell in summary["variants"].items()
    ]
    ahead = [
        [place, difference(cell["T@0.9"]), difference(cell["gap"]), n]
        for place, cell in summary["comparisons"].items()
    ]
    dose = [f"{best}, coefficient {choice['coefficient']:.2f}", *map(interval, chosen.values()), n]
    columns = ("", *MARKED, "gap", "coefficient at 90 %", "top-10: T@0.9", "gap", "n")
    minus = f"{best} (the best on the tune split) minus the others"
    left = "At the coefficient that left 90 % of the skill on the tune split"
    return [
        Table(columns, places),
        Table(("minus", "T@0.9", "gap", "n"), ahead, minus),
        Table(("", "skill left", "retained", "n"), [dose], left),
    ]


def paper() -> Table:
    """The paper's own figures."""
    rows = []
    for row in bundled("skills_table.jsonl"):
        at_1 = ", ".join(number(share, True) for share in row["at_1"])
        shares = [number(share, True) for share in (*row["kept"], row["gap"])]
        rows.append([row["skill"], f"{row['layer']}", at_1, *shares])
    columns = ("skill", "layer", "skill left, rest retained at coefficient 1", *MARKED, "gap")
    return Table(columns, rows, "The paper's figures; not measured here", folded=True)
