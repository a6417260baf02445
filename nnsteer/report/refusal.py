"""What a refusal run found: its rows to rates, the condition's quality, figures and a page."""

from __future__ import annotations

from functools import partial

from nnsteer.folder import Folder
from nnsteer.measure.answers import KEY
from nnsteer.report.look import interval, moved, number
from nnsteer.report.refusal_figures import doses, kinds, refusal, scores_and_curves
from nnsteer.report.section import Answer, Answers, Asked, Page, Picture, Section, Table, publish
from nnsteer.statistics import wilson
from nnsteer.texts.bundled import bundled
from nnsteer.texts.refusal import SIDES

LABELS = {
    "baseline": "baseline",
    "unconditional": "steered always",
    "conditional": "steered if harmful",
    "complement": "steered if not",
    "random": "random direction",
}
MEASURED = {"baseline": "base", "unconditional": "+ refusal", "conditional": "+ condition"}  # CAST Table 3's columns
RAW = ("summary.json", "config.json", "condition.json", "dose.json", "rows.jsonl", "dose_rows.jsonl")
CONDITION = (
    "Left: the condition's scores on the test prompts; dashed, the threshold. Right: F1 on the tune split for every "
    "threshold and "
    "layer, which chose the point; dot, the one chosen."
)
DOSE = (
    "The search on the tune split that chose reading window, layers and strength: share of answers refused (solid) and broken "
    "(dotted). Crosses: what random directions of that length change. Ringed: chosen."
)


def summarise(folder: Folder) -> dict:
    """The content of summary.json."""
    rows, condition = folder.read_lines("rows.jsonl", KEY), folder.read_json("condition.json")
    quality = condition["quality"]
    return {
        "variants": {variant: {side: cell(rows, variant, side) for side in SIDES} for variant in LABELS},
        "condition": {
            "layer": condition["site"]["layer"],
            "threshold": condition["threshold"],
            "fires_when": condition["fires_when"],
            **{name: {split: q[name] for split, q in quality.items()} for name in ("f1", "precision", "recall")},
        },
        "dose": folder.read_json("dose.json")["chosen"],
        "seconds": folder.read_json("seconds.json"),
    }


def cell(rows: list[dict], variant: str, side: str) -> dict:
    """Refused and broken shares of one variant on one side."""
    own = [row for row in rows if row["variant"] == variant and row["side"] == side]
    rate = wilson(sum(row["refused"] for row in own), len(own))
    broken = sum(row["broken"] for row in own) / len(own)
    return {"rate": rate.value, "low": rate.low, "high": rate.high, "n": rate.n, "broken": broken}


def write(folder: Folder) -> dict:
    """Writes summary.json, the figures and report.html from what lies in the folder, prints the tables, and returns the
    summary."""
    summary = summarise(folder)
    folder.write_json("summary.json", summary)
    about = (
        "Method: CAST, Programming Refusal with Conditional Activation Steering, sections 3 and 4: a direction is "
        "added that makes "
        "the model refuse, always or where a condition fires.",
    )
    publish(folder, Page("Conditional refusal", lead(summary), about, sections(folder, summary), RAW))
    return summary


def lead(summary: dict) -> str:
    """What was found."""
    before, after = (summary["variants"][variant] for variant in ("baseline", "conditional"))
    return (
        f"Steering where the condition fires "
        f"{moved('refusals of harmful prompts', *(v['harmful']['rate'] for v in (before, after)))};"
        f" {number(after['harmless']['rate'], True)} of harmless prompts were refused, "
        f"{number(before['harmless']['rate'], True)} without steering."
    )


def sections(folder: Folder, summary: dict) -> list[Section]:
    """The page."""
    rows, condition, dose = (
        folder.read_lines("rows.jsonl", KEY),
        folder.read_json("condition.json"),
        folder.read_json("dose.json"),
    )
    variants, c = summary["variants"], summary["condition"]
    rates = [
        [
            LABELS[v],
            *(text for side in SIDES for text in (interval(own[side]), f"{own[side]['n']}", number(own[side]["broken"], True))),
        ]
        for v, own in variants.items()
    ]
    sign = ">" if c["fires_when"] == "above" else "<="
    quality = [[split, *(f"{c[name][split]:.3f}" for name in ("f1", "precision", "recall"))] for split in c["f1"]]
    paper = [[row["model"], *("{:.1f} / {:.1f}".format(*row[name]) for name in MEASURED)] for row in bundled("cast_table3.jsonl")]
    return [
        Section(
            "Refused on the test split", ["An answer is judged by how it begins."],
            [Table(("", "harmful, refused", "n", "broken", "harmless, refused", "n", "broken"), rates)],
            [
                Picture("refusal", "Share of test prompts refused, with 95 % intervals. Hatched: broken "
                                   "answers.", partial(refusal, variants, LABELS)),
                Picture("kinds", "The same by kind of prompt, %. Red names: harmful kinds.", partial(kinds, rows, LABELS)),
            ],
            terms=("fit, tune and test split", "interval", "broken", "random direction"),
        ),
        Section(
            "The condition", [f"Fires when the score at layer {c['layer']} is {c['fires_when']} "
                              f"{number(c['threshold'], False)}."],
            [Table(("split", "F1", "precision", "recall"), quality, f"Score at layer {c['layer']} {sign} {c['threshold']:.5g}")],
            [Picture("condition", CONDITION, partial(scores_and_curves, condition))], terms=("score", "F1"),
        ),
        Section(
            "The dose", [f"Steering, chosen on the tune split: {summary['dose']} (in lengths of the direction)."], (),
            [Picture("dose", DOSE, partial(doses, dose))],
        ),
        Section(
            "For comparison: the paper's figures",
            ["CAST, Table 3, reported for its own models, prompts and classifier; not measured here."],
            [Table(("", *MEASURED.values()), paper, "Harmful / harmless refusal, %; not measured here")],
        ),
        Section("Every answer", answers=answers(rows)),
    ]  # fmt: skip


def answers(rows: list[dict]) -> Answers:
    """A column for each variant; ringed where the condition is wrong."""
    found: dict[tuple[str, str, str], dict[str, list[Answer]]] = {}
    for row in rows:
        said = "broken" if row["broken"] else "refused" if row["refused"] else "answered"
        fired = row["fired"]
        note = "" if fired is None else f"score {row['score']:.4f}, {'fired' if fired else 'did not fire'}"
        wrong = row["variant"] == "conditional" and fired != (row["side"] == "harmful")
        own = found.setdefault((row["side"], row["kind"], row["prompt"]), {})
        own[LABELS[row["variant"]]] = [Answer(row["completion"], (said,), note, wrong)]
    asked = [Asked(prompt, f"{side}: {kind}" if kind else side, own) for (side, kind, prompt), own in found.items()]
    return Answers(list(LABELS.values()), asked, "the condition is wrong")
