"""A skills run: rows to a summary, tables, figures and a page. Everything is rebuilt from the run folder."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial

import numpy as np

from nnsteer.folder import Folder
from nnsteer.measure import tradeoff
from nnsteer.measure.tradeoff import TradeOff, estimate, kept_at
from nnsteer.measure.tradeoff import difference as between
from nnsteer.measure.walks import CHOSEN, DRAWS, MATCHED, PERMUTED, rows_of, trade_offs
from nnsteer.report.look import NONE, difference, interval, number
from nnsteer.report.section import Page, Picture, Section, Table, publish
from nnsteer.report.skills_figures import by_place, coefficients, trade_off
from nnsteer.statistics import Estimate
from nnsteer.texts.bundled import bundled
from nnsteer.texts.skills import DOMAINS

LEVELS = (0.9, 0.8, 0.5)
RAW = ("summary.json", "config.json", "choice.json", "rows.jsonl")
DIAGONAL = (
    "{} accuracy as a share of the unsteered model's, a point for each coefficient. Above the diagonal, steering "
    "takes more of the "
    "skill than of the rest. Grey: the permuted controls at the best place."
)


def write(folder: Folder) -> dict:
    """Writes summary.json, the figures and report.html from what lies in the folder, prints the tables, and returns the
    summary."""
    summary = summarise(folder, trade_offs(rows_of(folder), "test"))
    folder.write_json("summary.json", summary)
    choice, chosen, settings = summary["choice"], summary["chosen"], folder.read_json("config.json")["settings"]
    lead = (
        f"Steering at {choice['best']} with coefficient {choice['coefficient']:.2f}, chosen to leave 90 % of the skill, left "
        f"{interval(chosen['skill'])} of the model's accuracy on {', '.join(settings['skill'])} and "
        f"{interval(chosen['retained'])} "
        "of that on the rest."
    )
    about = (
        f"Skill: {', '.join(settings['skill'])}. To be retained: {', '.join(settings['retained'])}. Method: Extending Activation "
        "Steering to Broad Skills and Multiple Behaviours (arXiv 2403.05767): the mean activation on the documents to "
        "be retained "
        "minus the one on the skill's, times a coefficient, is added to every token.",
    )
    publish(folder, Page("Broad skills", lead, about, sections(summary, settings), RAW))
    return summary


def summarise(folder: Folder, test: dict[str, TradeOff]) -> dict:
    """The content of summary.json. A value that could not be had is null."""
    choice, ten = folder.read_json("choice.json"), trade_offs(rows_of(folder), "test", "top10")
    best, worst = test[choice["best"]], test[choice["worst"]]
    others = {choice["worst"]: worst} if choice["worst"] != choice["best"] else {}
    others |= {name: test[name] for name in (PERMUTED, MATCHED)}
    chosen = {domain: bare(estimate(test[CHOSEN], lambda *both, i=i: both[i][..., -1])) for i, domain in enumerate(DOMAINS)}
    return {
        "baseline": {domain: baseline(best, ten[choice["best"]], domain) for domain in DOMAINS},
        "choice": choice,
        "chosen": chosen,
        "variants": {name: variant(one, ten[name]) for name, one in test.items() if name != CHOSEN},
        "comparisons": {
            name: {"T@0.9": bare(between(best, one, kept_at(0.9))), "gap": bare(between(best, one, tradeoff.gap))}
            for name, one in others.items()
        },
        "seconds": folder.read_json("seconds.json"),
    }


def baseline(top1: TradeOff, top10: TradeOff, domain: str) -> dict:
    """The unsteered model's accuracy on one domain."""
    counts, ten = getattr(top1, domain), getattr(top10, domain)
    facts = {"top1": float(counts.accuracy()[0]), "top10": float(ten.accuracy()[0])}
    return facts | {"tokens": int(counts.tokens[0].sum()), "documents": counts.tokens.shape[1]}


def variant(top1: TradeOff, top10: TradeOff) -> dict:
    """One way to steer: what it retains, and its curve."""
    curve = [{"coefficient": c} for c in top1.coefficients]
    for name, one in (("top1", top1), ("top10", top10)):
        for domain in DOMAINS:
            for step, value in zip(curve, getattr(one, domain).relative(), strict=True):
                step[f"{domain}_{name}"] = float(value)
    return {
        "kept": {f"{level:g}": bare(estimate(top1, kept_at(level))) for level in LEVELS},
        "gap": bare(estimate(top1, tradeoff.gap)),
        "coefficient": none_if_nan(top1.at(0.9).coefficient),
        "top10": {"kept": {"0.9": bare(estimate(top10, kept_at(0.9)))}, "gap": bare(estimate(top10, tradeoff.gap))},
        "curve": curve,
    }


def bare(found: Estimate) -> dict:
    """An estimate as JSON holds it."""
    return {name: none_if_nan(value) for name, value in asdict(found).items()}


def none_if_nan(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else float(value) if isinstance(value, float | np.floating) else value


def sections(summary: dict, settings: dict) -> list[Section]:
    """The page. n counts documents."""
    choice, levels = summary["choice"], [f"{level:g}" for level in LEVELS]
    marked = [f"T@{level}" for level in levels]
    documents = f"{min(cell['documents'] for cell in summary['baseline'].values())}"
    plain = [
        [domain, number(cell["top1"], True), number(cell["top10"], True), f"{cell['tokens']}", f"{cell['documents']}"]
        for domain, cell in summary["baseline"].items()
    ]
    marks = {choice["worst"]: " (worst on tune)", choice["best"]: " (best on tune)"}
    retained = [
        [
            name + marks.get(name, ""),
            interval(cell["kept"]["0.9"]),
            *(number(cell["kept"][at]["value"], True) for at in levels[1:]),
            interval(cell["gap"]),
            NONE if cell["coefficient"] is None else f"{cell['coefficient']:.2f}",
            interval(cell["top10"]["kept"]["0.9"]),
            interval(cell["top10"]["gap"]),
            documents,
        ]
        for name, cell in summary["variants"].items()
    ]
    against = [
        [name, *(difference(cell[what]) for what in ("T@0.9", "gap")), documents] for name, cell in summary["comparisons"].items()
    ]
    paper = [
        [row["skill"], f"{row['layer']}", ", ".join(number(share, True) for share in row["at_1"])]
        + [number(value, True) for value in (*row["kept"], row["gap"])]
        for row in bundled("skills_table.jsonl")
    ]
    drifting = "As published, each coefficient saw other documents than the one before; shares above 100 % come from that."
    return [
        Section("The unsteered model", ("On the test split.",), [Table(("", "top-1", "top-10", "tokens", "n, documents"), plain)],
                terms=("fit, tune and test split", "top-1, top-10")),
        Section(
            "What is retained",
            ["Accuracy of next-token prediction, relative to the unsteered model. A dash: the skill never falls so "
             "far. Intervals: "
             "95 %, from drawing documents anew.",
             f"The permuted controls, at {choice['best']}, shuffle the entries of both means, as published and cut to "
             f"the direction's "
             f"length; the documents take {DRAWS} permutations in turn.", *([drifting] if settings.get("drifting") else [])],
            [Table(("", *marked, "gap", "coefficient at 90 %", "top-10: T@0.9", "gap", "n"), retained),
             Table(("minus", "T@0.9", "gap", "n"), against, f"{choice['best']} (the best on the tune split) minus the others"),
             Table(("", "skill left", "retained", "n"), [[f"{choice['best']}, coefficient {choice['coefficient']:.2f}",
                   *(interval(summary["chosen"][domain]) for domain in DOMAINS), documents]],
                   "At the coefficient that left 90 % of the skill on the tune split")],
            [Picture("kept", "T@0.9 by place, with 95 % intervals. Orange: the best on the tune split. Grey: the "
                             "permuted controls.",
                     partial(by_place, summary, "T@0.9")),
             Picture("gap", "The gap by place, likewise.", partial(by_place, summary, "gap"))],
            terms=("T@x", "gap"),
        ),
        Section("Skill against the rest",
            ["nnsteer generate --programs with this folder steers at the chosen coefficient (variant steered)."], (),
            [*(Picture(f"trade-off-{name}", DIAGONAL.format(name), partial(trade_off, summary, top))
               for top, name in (("top1", "top-1"), ("top10", "top-10"))),
             Picture("coefficients", "Top-1 accuracy by coefficient, a colour for each place. Solid: the skill. "
                                     "Dashed: the rest.",
                     partial(coefficients, summary))]),
        Section(
            "For comparison: the paper's figures",
            ["Llama 2 7B on the Pile and CodeParrot, computed from the result files that the paper's authors "
             "published; not measured here."],
            [Table(("skill", "layer", "skill left, rest retained at coefficient 1", *marked, "gap"), paper,
                   "The paper's figures; not measured here", folded=True)],
        ),
    ]  # fmt: skip
