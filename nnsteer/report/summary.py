"""What the rows say: rates with their intervals, the condition's quality, and the paper's figures beside them."""

from __future__ import annotations

from rich.table import Table

from nnsteer.folder import Folder
from nnsteer.measure.answers import KEY
from nnsteer.report.look import ends, number, plain_table
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


def tables(summary: dict) -> dict[str, Table]:
    """The tables for the terminal, by heading."""
    rates = plain_table("", "harmful", "harmless", "broken")
    for variant, label in LABELS.items():
        harmful, harmless = (summary["variants"][variant][side] for side in SIDES)
        broken = f"{100 * harmful['broken']:.1f} / {100 * harmless['broken']:.1f}"
        rates.add_row(label, interval(harmful), interval(harmless), broken)
    c = summary["condition"]
    quality = plain_table("", "F1", "precision", "recall")
    for split in c["f1"]:
        quality.add_row(split, *(f"{c[name][split]:.3f}" for name in ("f1", "precision", "recall")))
    paper = plain_table("", *MEASURED.values())
    for row in bundled("cast_table3.jsonl"):
        paper.add_row(row["model"], *("{:.1f} / {:.1f}".format(*row[name]) for name in MEASURED))
    sign = ">" if c["fires_when"] == "above" else "<="
    return {
        "Refused on the test split, with 95 % Wilson intervals": rates,
        f"The condition: score at layer {c['layer']} {sign} {c['threshold']:.5g}": quality,
        "For comparison, the paper's figures (CAST, Table 3; not measured here): harmful / harmless refusal, %": paper,
    }


def interval(cell: dict) -> str:
    """`97.8 % [95.2, 99.0]`."""
    return f"{number(cell['rate'], True)} {ends(cell['low'], cell['high'], True)}"
