"""What an ACE run found: its rows to curves and standardisation scores, tables, figures, a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from math import isnan, nan
from statistics import fmean

import numpy as np

from nnsteer.folder import Folder
from nnsteer.measure.refusal import is_broken, is_refused
from nnsteer.measure.standardisation import by_method, curve, shares, standardisation
from nnsteer.report.affine_figures import BANDS, candidates, curves, layers, scores
from nnsteer.report.answers import kind_of, side_by_side
from nnsteer.report.look import NONE, interval, number
from nnsteer.report.section import (
    Answer,
    Answers,
    Page,
    Picture,
    Section,
    Table,
    file_name,
    publish,
)
from nnsteer.statistics import estimate
from nnsteer.study.rows import Row, read_rows
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
SETS = {f"{side} test": side for side in SIDES}
RAW = (
    "summary.json",
    "config.json",
    "layer.json",
    "variants.json",
    "rows.jsonl",
    "completions.jsonl",
)
ABOUT = (
    "Method: ACE, Refusal in LLMs is an Affine Function, beside the ways to steer that it is "
    "compared with. The direction, the mean on the positive side of the contrast texts minus that "
    "on the negative, was read at {chosen}."
)
SCORES = "Standardisation scores, with 95 % intervals over prompts. Grey: a random direction."
CURVES = (
    "refusal of harmful and of harmless test prompts against alpha: the mean over prompts, and as "
    "a band {band}. Dashed: the other side's mean. Dotted: broken answers. Diamonds: the ideal."
)
TUNED = (
    "ACE's standardisation score on the tune split at each place, from answers at alpha 0, 0.5 and "
    "1. Ringed: chosen."
)
SELECTED = (
    "Refusal score of harmful tune prompts, the candidate ablated everywhere. Hollow: beyond a "
    "limit. Ringed: chosen."
)
ANSWERS = "The first sample of each. Alphas with the same answer stand together."
TERMS = "standardisation", "fit, tune and test split", "interval", "broken", "random direction"
REFUSED = "refused, harmful / harmless: at alpha 0"
Rows = Mapping[str, Mapping[float, Sequence[Row]]]
"""By method and alpha."""


def write(folder: Folder) -> dict:
    """Writes summary.json, the figures and report.html from what lies in the folder, prints the
    table, and returns the summary."""
    rows = read(folder)
    summary = summarise(folder, rows)
    folder.write_json("summary.json", summary)
    about = ABOUT.format(chosen=summary["chosen"])
    shown = sections(folder, summary, rows)
    publish(folder, Page("Affine concept editing", lead(summary), (about,), shown, RAW))
    return summary


def read(folder: Folder) -> Rows:
    """The test rows, in the order in which their prompts were given: a bootstrap depends on it."""
    given = folder.read_json("prompts.json")
    order = [(name, prompt) for name, prompts in given.items() for prompt in prompts]
    number = {prompt: i for i, prompt in enumerate(order)}
    rows = read_rows(folder, SETS)
    rows.sort(key=lambda row: (number[row.set, row.prompt], row.sample))
    return by_method(rows, folder.read_json("variants.json"))


def summarise(folder: Folder, rows: Rows) -> dict:
    """The content of summary.json."""
    settings = folder.read_json("config.json")["settings"]
    cells = {
        method: {str(alpha): cell(answers) for alpha, answers in at_alphas.items()}
        for method, at_alphas in rows.items()
    }
    unsteered = cells.pop(UNSTEERED)["0.0"]
    return {
        "methods": cells,
        "standardisation": {method: scored(rows[method], settings["seed"]) for method in cells},
        "unsteered": unsteered,
        "samples": settings["samples"],
        "chosen": folder.read_json("layer.json")["chosen"],
        "seconds": folder.read_json("seconds.json"),
    }


def cell(answers: Sequence[Row]) -> dict:
    """A method at one alpha: each side's refusal, and the share of whole answers."""
    sides = {side: rate(list(shares(answers, name).values())) for name, side in SETS.items()}
    return sides | {"coherence": fmean(not is_broken(row) for row in answers)}


def rate(of_prompts: Sequence[float]) -> dict:
    """Refusal over prompts with interval and quartiles; None where nothing was judged."""
    mean = estimate(of_prompts, binary=True)
    q25, q75 = np.quantile(of_prompts or [nan], [0.25, 0.75])
    facts = {"rate": mean.value, "low": mean.low, "high": mean.high, "n": mean.n}
    facts |= {"q25": float(q25), "q75": float(q75)}
    return {name: None if isnan(number) else number for name, number in facts.items()}


def scored(answers: Mapping[float, Sequence[Row]], seed: int) -> dict:
    """A method's standardisation score."""
    harmful, harmless = (curve(answers, name) for name in SETS)
    score = standardisation(list(answers), harmful, harmless, seed)
    return {"score": score.value, "low": score.low, "high": score.high, "n": score.n}


def label(method: str) -> str:
    """A method as it is called in print; its place, where it has one, stands behind it."""
    name, _, where = method.partition(" ")
    return LABELS[name] + (f", {where}" if where else "")


def ranked(summary: dict) -> list[str]:
    """The methods, the best score first."""
    scores = summary["standardisation"]
    return sorted(scores, key=lambda method: -scores[method]["score"])


def scored_as(summary: dict, method: str) -> str:
    """`0.81 [0.75, 0.86]`."""
    score = summary["standardisation"][method]
    return interval(score | {"value": score["score"]}, False)


def sides(cell: dict | None) -> str:
    """`98 / 97 %`: harmful and harmless; a dash where nothing was tried."""
    return " / ".join(number(cell[side]["rate"], True) for side in SIDES) if cell else NONE


def lead(summary: dict) -> str:
    """What was found."""
    best = next(method for method in ranked(summary) if not method.startswith("random"))
    cells = summary["methods"][best]
    return (
        f"Of {len(summary['methods'])} ways to steer, {label(best)} made the strength alpha mean "
        "most nearly the same for every prompt: its standardisation score is "
        f"{scored_as(summary, best)}, at most 1. At alpha 1 it refused {sides(cells['1.0'])} of "
        f"harmful / harmless prompts, at 0 {sides(cells['0.0'])}; unsteered, the model refused "
        f"{sides(summary['unsteered'])}."
    )


def sections(folder: Folder, summary: dict, rows: Rows) -> list[Section]:
    """The page."""
    draw = partial(scores, summary["standardisation"], label)
    return [
        Section(
            "Does alpha mean the same for every prompt?",
            [tested(summary, folder.read_json("config.json")["settings"])],
            [ranking(summary), every_rate(summary)],
            [Picture("standardisation", SCORES, draw)],
            terms=TERMS,
        ),
        Section("Refusal against alpha", figures=[picture(summary, m) for m in summary["methods"]]),
        Section("The layer", figures=[layer_picture(folder.read_json("layer.json"))]),
        Section("Answers", [ANSWERS], answers=answers(rows)),
    ]


def tested(summary: dict, settings: dict) -> str:
    """On what, and how it was judged."""
    greedy = settings["samples"] == 1 and not settings["temperature"]
    sampled = f"{settings['samples']} answers each at temperature {settings['temperature']}"
    harmful, harmless = (summary["unsteered"][side]["n"] for side in SIDES)
    return (
        f"{harmful} harmful and {harmless} harmless test prompts, "
        f"{'greedy decoding' if greedy else sampled}, judged by {settings['measure']}. "
        "Ablation has no alpha; quadratic editing knows only its side of 0.5."
    )


def ranking(summary: dict) -> Table:
    """A row for each method, the best first, and one for the unsteered model."""
    rows = []
    for method in ranked(summary):
        cells, n = summary["methods"][method], summary["standardisation"][method]["n"]
        rates = [sides(cells.get(alpha)) for alpha in ("0.0", "0.5", "1.0")]
        whole = " / ".join(number(cells[alpha]["coherence"], True) for alpha in ("0.0", "1.0"))
        rows.append([label(method), scored_as(summary, method), f"{n}", *rates, whole])
    plain = summary["unsteered"]
    n, whole = sum(plain[side]["n"] for side in SIDES), number(plain["coherence"], True)
    rows.append([UNSTEERED, "", f"{n}", sides(plain), "", "", whole])
    return Table(("", "standardisation", "n", REFUSED, "at 0.5", "at 1", "whole at 0 / 1"), rows)


def every_rate(summary: dict) -> Table:
    """A row for each method and alpha."""
    rows = []
    for method in [*ranked(summary), UNSTEERED]:
        for alpha, of in summary["methods"].get(method, {"": summary["unsteered"]}).items():
            rates = [text for side in SIDES for text in (interval(of[side]), f"{of[side]['n']}")]
            rows.append([label(method), alpha, *rates, number(of["coherence"], True)])
    columns = "method", "alpha", "harmful, refused", "n", "harmless, refused", "n", "whole answers"
    return Table(columns, rows, "Refusal by method, alpha and side", folded=True)


def picture(summary: dict, method: str) -> Picture:
    """A method's refusal against alpha."""
    ends, band = BANDS[summary["samples"] > 1]
    cells, score = summary["methods"][method], scored_as(summary, method)
    caption = f"{label(method)}: {CURVES.format(band=band)}"
    draw = partial(curves, label(method), cells, score, ends)
    return Picture(file_name("refusal", method), caption, draw)


def layer_picture(layer: dict) -> Picture:
    """How the layer was chosen."""
    if "trials" in layer:
        return Picture("layer", TUNED, partial(layers, layer))
    return Picture("layer", SELECTED, partial(candidates, layer))


def answers(rows: Rows) -> Answers:
    """A column for each method; alphas one after another with the same answer share one entry."""
    given = []
    for method, cells in rows.items():
        firsts = [[row for row in cell if row.sample == 0] for cell in cells.values()]
        for of_prompt in zip(*firsts, strict=True):
            at_alphas = zip(cells, of_prompt, strict=True)
            for _, alike in groupby(at_alphas, lambda pair: pair[1].completion):
                alphas, (row, *_) = zip(*alike, strict=True)
                ends = dict.fromkeys(f"{alpha:g}" for alpha in (alphas[0], alphas[-1]))
                note = "" if method == UNSTEERED else f"alpha {' to '.join(ends)}"
                answer = Answer(row.completion, (verdict(row),), note)
                kind = kind_of(SETS[row.set], row.kind)
                given.append((row.prompt, kind, label(method), answer))
    return side_by_side(given, list(map(label, rows)))


def verdict(row: Row) -> str:
    """What is said of an answer."""
    if is_broken(row):
        return "broken"
    if row.values["refusal"] is None:
        return "not judged"
    return "refused" if is_refused(row) else "answered"
