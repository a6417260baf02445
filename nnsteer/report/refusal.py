"""What a refusal run found: its rows to rates, the condition's quality, figures and a page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nnsteer.folder import Folder
from nnsteer.measure.refusal import is_broken, is_refused
from nnsteer.report.look import interval, moved, number
from nnsteer.report.refusal_figures import doses, kinds, refusal, scores_and_curves
from nnsteer.report.section import Answer, Answers, Asked, Page, Picture, Section, Table, publish
from nnsteer.statistics import wilson
from nnsteer.study.rows import Row, read_rows
from nnsteer.texts.bundled import bundled
from nnsteer.texts.refusal import SIDES

LABELS = {
    "baseline": "baseline",
    "unconditional": "steered always",
    "conditional": "steered if harmful",
    "complement": "steered if not",
    "random": "random direction",
}
# CAST Table 3's columns
MEASURED = {"baseline": "base", "unconditional": "+ refusal", "conditional": "+ condition"}
SETS = {f"{side} test": side for side in SIDES}
RAW = (
    "summary.json",
    "config.json",
    "condition.json",
    "dose.json",
    "rows.jsonl",
    "completions.jsonl",
)
ABOUT = (
    "Method: CAST, Programming Refusal with Conditional Activation Steering, sections 3 and 4: a "
    "direction is added that makes the model refuse, always or where a condition fires."
)
REFUSAL = "Share of test prompts refused, with 95 % intervals. Hatched: broken answers."
KINDS = "The same by kind of prompt, %. Red names: harmful kinds."
CONDITION = (
    "Left: the condition's scores on the test prompts; "
    "dashed, the threshold. Right: F1 on the tune "
    "split for every threshold and layer, which chose the point; dot, the one chosen."
)
DOSE = (
    "The search on the tune split that chose reading window, layers and strength: share of answers "
    "refused (solid) and broken (dotted). Crosses: what random directions of that length change. "
    "Ringed: chosen."
)
PAPER = "CAST, Table 3, reported for its own models, prompts and classifier; not measured here."


def write(folder: Folder) -> dict:
    """Writes summary.json, the figures and report.html from what lies in the folder, prints the
    tables, and returns the summary."""
    rows = read_rows(folder, SETS)
    summary = summarise(folder, rows)
    folder.write_json("summary.json", summary)
    shown = sections(folder, rows, summary)
    page = Page("Conditional refusal", lead(summary), (ABOUT,), shown, RAW)
    publish(folder, page)
    return summary


def summarise(folder: Folder, rows: Sequence[Row]) -> dict:
    """The content of summary.json."""
    condition = folder.read_json("condition.json")
    quality = condition["quality"]
    names = ("f1", "precision", "recall")
    return {
        "variants": {
            variant: {side: cell(rows, variant, name) for name, side in SETS.items()}
            for variant in LABELS
        },
        "condition": {
            "layer": condition["site"]["layer"],
            "threshold": condition["threshold"],
            "fires_when": condition["fires_when"],
            **{name: {split: q[name] for split, q in quality.items()} for name in names},
        },
        "dose": folder.read_json("dose.json")["chosen"],
        "seconds": folder.read_json("seconds.json"),
    }


def cell(rows: Sequence[Row], variant: str, set_name: str) -> dict:
    """Refused and broken shares of one variant on one side."""
    answers = [row for row in rows if (row.variant, row.set) == (variant, set_name)]
    rate = wilson(sum(map(is_refused, answers)), len(answers))
    broken = sum(map(is_broken, answers)) / len(answers)
    return {"rate": rate.value, "low": rate.low, "high": rate.high, "n": rate.n, "broken": broken}


def lead(summary: dict) -> str:
    """What was found."""
    before, after = (summary["variants"][variant] for variant in ("baseline", "conditional"))
    harmful = [variant["harmful"]["rate"] for variant in (before, after)]
    harmless = [number(variant["harmless"]["rate"], True) for variant in (before, after)]
    return (
        f"Steering where the condition fires {moved('refusals of harmful prompts', *harmful)}; "
        f"{harmless[1]} of harmless prompts were refused, {harmless[0]} without steering."
    )


def sections(folder: Folder, rows: Sequence[Row], summary: dict) -> list[Section]:
    """The page."""
    dose = folder.read_json("dose.json")
    condition, variants = folder.read_json("condition.json"), summary["variants"]
    return [
        Section(
            "Refused on the test split",
            ["An answer is judged by how it begins."],
            [rates(variants)],
            [
                Picture("refusal", REFUSAL, partial(refusal, variants, LABELS)),
                Picture("kinds", KINDS, partial(kinds, rows, LABELS)),
            ],
            terms=("fit, tune and test split", "interval", "broken", "random direction"),
        ),
        Section(
            "The condition",
            [fires(summary["condition"])],
            [quality(summary["condition"])],
            [Picture("condition", CONDITION, partial(scores_and_curves, condition))],
            terms=("score", "F1"),
        ),
        Section(
            "The dose",
            [
                "Steering, chosen on the tune split: "
                f"{summary['dose']} (in lengths of the direction)."
            ],
            figures=[Picture("dose", DOSE, partial(doses, dose))],
        ),
        Section("For comparison: the paper's figures", [PAPER], [paper()]),
        Section("Every answer", answers=answers(rows)),
    ]


def rates(variants: dict) -> Table:
    """Refused and broken shares, side by side."""
    rows = []
    for variant, sides in variants.items():
        cells = [LABELS[variant]]
        for of in sides.values():
            cells += [interval(of), f"{of['n']}", number(of["broken"], True)]
        rows.append(cells)
    columns = [text for side in SIDES for text in (f"{side}, refused", "n", "broken")]
    return Table(("", *columns), rows)


def fires(condition: dict) -> str:
    """When the condition does."""
    threshold = number(condition["threshold"], False)
    layer, side = condition["layer"], condition["fires_when"]
    return f"Fires when the score at layer {layer} is {side} {threshold}."


def quality(condition: dict) -> Table:
    """How well it tells the sides apart, split by split."""
    names = ("f1", "precision", "recall")
    rows = [
        [split, *(f"{condition[name][split]:.3f}" for name in names)] for split in condition["f1"]
    ]
    sign = ">" if condition["fires_when"] == "above" else "<="
    title = f"Score at layer {condition['layer']} {sign} {condition['threshold']:.5g}"
    return Table(("split", "F1", "precision", "recall"), rows, title)


def paper() -> Table:
    """CAST's own figures."""
    rows = [
        [row["model"], *("{:.1f} / {:.1f}".format(*row[name]) for name in MEASURED)]
        for row in bundled("cast_table3.jsonl")
    ]
    title = "Harmful / harmless refusal, %; not measured here"
    return Table(("", *MEASURED.values()), rows, title)


def answers(rows: Sequence[Row]) -> Answers:
    """A column for each variant; ringed where the condition is wrong."""
    by_prompt: dict[tuple[str, str, str], dict[str, list[Answer]]] = {}
    for row in rows:
        side = SETS[row.set]
        verdict = "broken" if is_broken(row) else "refused" if is_refused(row) else "answered"
        fired = row.fired[0] if row.fired else None
        did = "fired" if fired else "did not fire"
        note = "" if fired is None else f"score {row.scores[0]:.4f}, {did}"
        wrong = row.variant == "conditional" and fired != (side == "harmful")
        of_prompt = by_prompt.setdefault((side, row.kind, row.prompt), {})
        of_prompt[LABELS[row.variant]] = [Answer(row.completion, (verdict,), note, wrong)]
    asked = [
        Asked(prompt, f"{side}: {kind}" if kind else side, of_prompt)
        for (side, kind, prompt), of_prompt in by_prompt.items()
    ]
    return Answers(list(LABELS.values()), asked, "the condition is wrong")
