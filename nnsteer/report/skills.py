"""A skills run: rows to a summary, tables, figures and a page. Everything is rebuilt from the run folder."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
from rich.table import Table

from nnsteer.folder import Folder
from nnsteer.measure import tradeoff
from nnsteer.measure.tradeoff import TradeOff, difference, estimate, kept_at
from nnsteer.measure.walks import CHOSEN, DRAWS, MATCHED, PERMUTED, rows_of, trade_offs
from nnsteer.report.look import NONE, encoded, ends, gap, number, plain_table, repeated, show, template
from nnsteer.report.pictures import Picture, draw
from nnsteer.report.skills_figures import pictures
from nnsteer.statistics import Estimate
from nnsteer.texts.bundled import bundled
from nnsteer.texts.skills import DOMAINS

LEVELS = (0.9, 0.8, 0.5)


def write(folder: Folder) -> dict:
    """Writes summary.json, the figures and report.html from what lies in the folder, prints the tables, and returns the
    summary."""
    test = trade_offs(rows_of(folder), "test")
    summary = summarise(folder, test)
    folder.write_json("summary.json", summary)
    groups: dict[str, list[tuple[str, Picture]]] = {}
    for picture in draw(folder, pictures(summary)):
        groups.setdefault(picture.group, []).append((encoded(folder / "figures" / f"{picture.name}.png"), picture))
    config = folder.read_json("config.json")
    html = template("skills.html").render(
        summary=summary,
        config=config,
        command=repeated(config["command"]),
        groups=groups,
        draws=DRAWS,
        points=points,
        paper=bundled("skills_table.jsonl"),
        interval=interval,
        levels=[f"{level:g}" for level in LEVELS],
    )
    folder.write_text("report.html", html)
    for heading, table in tables(summary).items():
        show(heading, table)
    print(f"{folder / 'report.html'}  the page with figures")
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
            name: {"T@0.9": bare(difference(best, one, kept_at(0.9))), "gap": bare(difference(best, one, tradeoff.gap))}
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


def interval(cell: dict) -> str:
    """`96.6 % [95.0, 98.1]`."""
    return NONE if cell["value"] is None else f"{number(cell['value'], True)} {ends(cell['low'], cell['high'], True)}"


def points(cell: dict) -> str:
    """`+2.1 points [0.9, 3.2]`."""
    return NONE if cell["value"] is None else f"{gap(cell['value'], True)} {ends(cell['low'], cell['high'], True)}"


def tables(summary: dict) -> dict[str, Table]:
    """The tables for the terminal, by heading."""
    plain = plain_table("", "top-1", "top-10", "tokens", "documents")
    for domain, cell in summary["baseline"].items():
        shares = (number(cell[name], True) for name in ("top1", "top10"))
        plain.add_row(domain, *shares, str(cell["tokens"]), str(cell["documents"]))
    places = plain_table("", "T@0.9", "gap", "coefficient")
    for name, cell in summary["variants"].items():
        c = cell["coefficient"]
        places.add_row(name, interval(cell["kept"]["0.9"]), interval(cell["gap"]), NONE if c is None else f"{c:.2f}")
    against = plain_table("", "T@0.9", "gap")
    for name, cell in summary["comparisons"].items():
        against.add_row(name, *(points(cell[what]) for what in ("T@0.9", "gap")))
    choice, chosen = summary["choice"], summary["chosen"]
    dose = plain_table("", "skill left", "retained")
    dose.add_row(f"{choice['best']}, coefficient {choice['coefficient']:.2f}", *(interval(chosen[domain]) for domain in DOMAINS))
    return {
        "The unsteered model on the test split": plain,
        "T@0.9: what is retained where 90 % of the skill is left; gap: the most by which it exceeds the skill": places,
        f"{choice['best']} (the best on the tune split) minus the others": against,
        "At the coefficient that left 90 % of the skill on the tune split": dose,
    }
