"""What an ACE run found: its rows to curves and standardisation scores, a table in the terminal, and one self-contained page.
All is rebuilt from the run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
from rich.table import Table

from nnsteer.folder import Folder
from nnsteer.measure.sampled import KEY, Row
from nnsteer.measure.standardisation import curve, standardisation
from nnsteer.report.affine_figures import pictures
from nnsteer.report.look import encoded, ends, number, plain_table, repeated, show, template
from nnsteer.report.pictures import Picture, draw
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
Rows = Mapping[str, Mapping[float, Sequence[Row]]]
"""By method and alpha."""


def write(folder: Folder) -> dict:
    """Writes summary.json, the figures and report.html from what lies in the folder; prints the table; returns the summary."""
    rows = read(folder)
    summary = summarise(folder, rows)
    folder.write_json("summary.json", summary)
    layer = folder.read_json("layer.json")
    names = {method: label(method) for method in rows}
    drawn = draw(folder, pictures(summary, layer, names))
    folder.write_text("report.html", page(folder, summary, rows, drawn))
    show(f"Refused on the test split, %, harmful / harmless, at {layer['chosen']}", table(summary))
    print(f"{folder / 'report.html'}  the page with figures and answers")
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


def table(summary: dict) -> Table:
    """The table for the terminal, the best score first."""
    made = plain_table("", "standardisation", "alpha 0", "alpha 0.5", "alpha 1", "whole answers at 0 / 1")
    for method in ranked(summary):
        score, cells = summary["standardisation"][method], summary["methods"][method]
        at = [both(cells[alpha]) if alpha in cells else "" for alpha in ("0.0", "0.5", "1.0")]
        whole = " / ".join(f"{100 * cells[alpha]['coherence']:.0f} %" for alpha in ("0.0", "1.0"))
        made.add_row(label(method), f"{score['score']:.2f} {ends(score['low'], score['high'], False)}", *at, whole)
    made.add_row("unsteered", "", both(summary["unsteered"]), "", "", f"{100 * summary['unsteered']['coherence']:.0f} %")
    return made


def ranked(summary: dict) -> list[str]:
    """The methods, the best score first."""
    return sorted(summary["methods"], key=lambda method: -summary["standardisation"][method]["score"])


def both(cell: dict) -> str:
    """`98 / 97`."""
    return " / ".join("–" if cell[side]["rate"] is None else f"{100 * cell[side]['rate']:.0f}" for side in SIDES)


def page(folder: Folder, summary: dict, rows: Rows, drawn: list[Picture]) -> str:
    """The page's HTML, with the figures inside it."""
    config = folder.read_json("config.json")
    groups: dict[str, list[Picture]] = {}
    for picture in drawn:
        groups.setdefault(picture.group, []).append(picture)
    return template("affine.html").render(
        summary=summary,
        config=config,
        command=repeated(config["command"]),
        sides=SIDES,
        order=ranked(summary),
        label=label,
        shown=lambda rate: f"{number(rate['rate'], True)} {ends(rate['low'], rate['high'], True)}",
        groups=groups,
        images={picture.name: encoded(folder / "figures" / f"{picture.name}.png") for picture in drawn},
        answers=answers(rows),
    )


def answers(rows: Rows) -> dict[tuple[str, str, str], dict[str, list[tuple[str, Row]]]]:
    """By side, kind and prompt, each method's first samples; alphas one after another with the same answer share one entry."""
    found: dict[tuple[str, str, str], dict[str, list[tuple[str, Row]]]] = {}
    for method in sorted(rows, key=lambda method: method != UNSTEERED):
        for alpha, own in sorted(rows[method].items()):
            for row in own:
                if row.sample == 0:
                    entries = found.setdefault((row.side, row.kind, row.prompt), {}).setdefault(method, [])
                    if entries and entries[-1][1].completion == row.completion:
                        first = entries[-1][0].partition(" to ")[0]
                        entries[-1] = (f"{first} to {alpha:g}", row)
                    else:
                        entries.append((f"{alpha:g}", row))
    return found
