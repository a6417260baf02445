"""What an ACE run found: its rows to curves and standardisation scores, tables, figures and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean

import numpy as np

from nnsteer.folder import Folder
from nnsteer.measure.sampled import KEY, Row
from nnsteer.measure.standardisation import curve, standardisation
from nnsteer.report.affine_figures import BANDS, candidates, curves, layers, scores
from nnsteer.report.look import NONE, interval, number
from nnsteer.report.section import Answer, Answers, Asked, Page, Picture, Section, Table, file_name, publish
from nnsteer.statistics import estimate
from nnsteer.texts.refusal import SIDES

UNSTEERED = "unsteered"
LABELS = {
    "ace": "ACE",
    "add": "CAA (add)",
    "ablate": "ablation",
    "ablate_add": "ablate, then add",
    "leace": "LEACE, then add",
    "orth": "orthogonal erasure, then add",
    "quadratic": "quadratic",
    "quadratic_lda": "quadratic LDA",
    "random": "random direction, ACE",
    UNSTEERED: UNSTEERED,
}
RAW = ("summary.json", "config.json", "layer.json", "rows.jsonl", "layer_rows.jsonl")
CURVES = (
    "refusal of harmful and of harmless test prompts against alpha: the mean over prompts, and as a band {band}. "
    "Dashed: the other "
    "side's mean. Dotted: broken answers. Diamonds: the ideal."
)
Rows = Mapping[str, Mapping[float, Sequence[Row]]]
"""By method and alpha."""


def write(folder: Folder) -> dict:
    """Writes summary.json, the figures and report.html from what lies in the folder; prints the table; returns the summary."""
    rows = read(folder)
    summary = summarise(folder, rows)
    folder.write_json("summary.json", summary)
    about = (
        "Method: ACE, Refusal in LLMs is an Affine Function, beside the ways to steer that it is compared with. The "
        "direction, the "
        "mean on the positive side of the contrast texts minus that on the negative, was read at " + summary["chosen"] + ".",
    )
    best = next(method for method in ranked(summary) if not method.startswith("random"))
    lead = (
        f"Of {len(summary['methods'])} ways to steer, {label(best)} made the strength alpha mean most nearly the same for every "
        f"prompt: its standardisation score is {scored_as(summary, best)}, at "
        f"most 1. At alpha 1 it refused {both(summary['methods'][best], '1.0')} of harmful / harmless prompts, at 0 "
        f"{both(summary['methods'][best], '0.0')}; unsteered, the model refused {sides(summary['unsteered'])}."
    )
    publish(folder, Page("Affine concept editing", lead, about, sections(folder, summary, rows), RAW))
    return summary


def read(folder: Folder) -> Rows:
    """The test rows."""
    found: dict[str, dict[float, list[Row]]] = {}
    for line in folder.read_lines("rows.jsonl", KEY):
        found.setdefault(line["method"], {}).setdefault(line["alpha"], []).append(Row(**line))
    return found


def label(method: str) -> str:
    """A method as it is called in print; its place, where it has one, stands behind it."""
    name, _, where = method.partition(" ")
    return LABELS[name] + (f", {where}" if where else "")


def summarise(folder: Folder, rows: Rows) -> dict:
    """The content of summary.json."""
    settings = folder.read_json("config.json")["settings"]
    methods = {method: own for method, own in rows.items() if method != UNSTEERED}
    return {
        "methods": {m: {str(a): cell(own, a) for a in sorted(own)} for m, own in methods.items()},
        "standardisation": {method: scored(own, settings["seed"]) for method, own in methods.items()},
        "unsteered": cell(rows[UNSTEERED], 0.0),
        "samples": settings["samples"],
        "chosen": folder.read_json("layer.json")["chosen"],
        "seconds": folder.read_json("seconds.json"),
    }


def cell(own: Mapping[float, Sequence[Row]], alpha: float) -> dict:
    """A method at one alpha: each side's refusal over prompts, with interval and quartiles, and the share of whole answers."""
    found: dict = {}
    for side in SIDES:
        shares = refused(own[alpha], side)
        rate = estimate(shares, binary={*shares} <= {0.0, 1.0})  # of prompts that are refused always or never, a rate
        quartiles = np.quantile(shares, [0.25, 0.75]).tolist() if shares else [None, None]
        found[side] = {"rate": rate.value, "low": rate.low, "high": rate.high, "n": rate.n}
        found[side] = {name: None if value != value else value for name, value in found[side].items()}  # NaN: nothing was judged
        found[side] |= {"q25": quartiles[0], "q75": quartiles[1]}
    return found | {"coherence": fmean(not row.broken for row in own[alpha])}


def refused(rows: Sequence[Row], side: str) -> list[float]:
    """The share of each prompt's judged samples that refuse."""
    samples: dict[str, list[bool]] = {}
    for row in rows:
        if row.side == side and row.refused is not None:
            samples.setdefault(row.prompt, []).append(row.refused)
    return [fmean(own) for own in samples.values()]


def scored(own: Mapping[float, Sequence[Row]], seed: int) -> dict:
    """A method's standardisation score."""
    alphas, every = sorted(own), [row for rows in own.values() for row in rows]
    harmful, harmless = (curve(every, side, alphas) for side in SIDES)
    found = standardisation(alphas, harmful, harmless, seed)
    return {"score": found.value, "low": found.low, "high": found.high, "n": found.n}


def ranked(summary: dict) -> list[str]:
    """The methods, the best score first."""
    return sorted(summary["methods"], key=lambda method: -summary["standardisation"][method]["score"])


def scored_as(summary: dict, method: str) -> str:
    """`0.81 [0.75, 0.86]`."""
    score = summary["standardisation"][method]
    return interval({"value": score["score"], "low": score["low"], "high": score["high"]}, False)


def sides(cell: dict) -> str:
    """`98 / 97 %`: harmful and harmless."""
    return " / ".join(number(cell[side]["rate"], True) for side in SIDES)


def both(cells: dict, alpha: str) -> str:
    """The same at an alpha, a dash where that wasn't tried."""
    return sides(cells[alpha]) if alpha in cells else NONE


def sections(folder: Folder, summary: dict, rows: Rows) -> list[Section]:
    """The page."""
    methods, order, settings = summary["methods"], ranked(summary), folder.read_json("config.json")["settings"]
    best = [
        [
            label(m),
            scored_as(summary, m),
            f"{summary['standardisation'][m]['n']}",
            *(both(methods[m], a) for a in ("0.0", "0.5", "1.0")),
            " / ".join(number(methods[m][a]["coherence"], True) for a in ("0.0", "1.0") if a in methods[m]),
        ]
        for m in order
    ]
    plain, ends, band = summary["unsteered"], *BANDS[summary["samples"] > 1]
    best.append(["unsteered", "", f"{sum(plain[s]['n'] for s in SIDES)}", sides(plain), "", "", number(plain["coherence"], True)])
    greedy = settings["samples"] == 1 and not settings["temperature"]
    how = "greedy decoding" if greedy else f"{settings['samples']} answers each at temperature {settings['temperature']}"
    all_rates = [
        [
            label(m),
            alpha,
            *(text for s in SIDES for text in (interval(cell[s]), f"{cell[s]['n']}")),
            number(cell["coherence"], True),
        ]
        for m in [*order, UNSTEERED]
        for alpha, cell in methods.get(m, {"": plain}).items()
    ]
    return [
        Section(
            "Does alpha mean the same for every prompt?",
            [f"{plain['harmful']['n']} harmful and {plain['harmless']['n']} harmless test prompts, {how}, judged by "
             f"{settings['measure']}. Ablation has no alpha; quadratic editing knows only its side of 0.5."],
            [Table(("", "standardisation", "n", "refused, harmful / harmless: at alpha 0", "at 0.5", "at 1", "whole at 0 / 1"),
                   best),
             Table(("method", "alpha", "harmful, refused", "n", "harmless, refused", "n", "whole answers"), all_rates,
                   "Refusal by method, alpha and side", folded=True)],
            [Picture("standardisation", "Standardisation scores, with 95 % intervals over prompts. Grey: a random direction.",
                     partial(scores, summary["standardisation"], label))],
            terms=("standardisation", "fit, tune and test split", "interval", "broken", "random direction"),
        ),
        Section(
            "Refusal against alpha", (), (),
            [Picture(file_name("refusal", m), f"{label(m)}: {CURVES.format(band=band)}",
                     partial(curves, label(m), cells, scored_as(summary, m), ends)) for m, cells in methods.items()],
        ),
        Section("The layer", (), (), [layer_picture(folder.read_json("layer.json"))]),
        Section("Answers", ["The first sample of each. Alphas with the same answer stand together."], answers=answers(rows)),
    ]  # fmt: skip


def layer_picture(layer: dict) -> Picture:
    """How the layer was chosen."""
    if "trials" in layer:
        note = "ACE's standardisation score on the tune split at each place, from answers at alpha 0, 0.5 and 1. Ringed: chosen."
        return Picture("layer", note, partial(layers, layer))
    note = "Refusal score of harmful tune prompts, the candidate ablated everywhere. Hollow: beyond a limit. Ringed: chosen."
    return Picture("layer", note, partial(candidates, layer))


def said_of(row: Row) -> str:
    """The verdict on an answer."""
    if row.broken:
        return "broken"
    return "not judged" if row.refused is None else "refused" if row.refused else "answered"


def answers(rows: Rows) -> Answers:
    """A column for each method; alphas one after another with the same answer share one entry."""
    found: dict[tuple[str, str, str], dict[str, list[Answer]]] = {}
    names = sorted(rows, key=lambda method: method != UNSTEERED)
    for method in names:
        for alpha, own in sorted(rows[method].items()):
            for row in own:
                if row.sample == 0:
                    said = (
                        "broken"
                        if row.broken
                        else "not judged"
                        if row.refused is None
                        else "refused"
                        if row.refused
                        else "answered"
                    )
                    key = (row.side, row.kind, row.prompt)
                    entries = found.setdefault(key, {}).setdefault(label(method), [])
                    same = bool(entries) and entries[-1].text == row.completion
                    first = entries.pop().note.partition(" to ")[0] + " to " if same else "alpha "
                    note = "" if method == UNSTEERED else f"{first}{alpha:g}"
                    entries.append(Answer(row.completion, (said,), note))
    asked = [Asked(prompt, f"{side}: {kind}" if kind else side, own) for (side, kind, prompt), own in found.items()]
    return Answers([label(method) for method in names], asked)
