"""What the rows say: rates with their intervals, the condition's quality, and the paper's figures beside them."""

from __future__ import annotations

from rich.table import Table

from nnsteer.data import bundled
from nnsteer.folder import Folder
from nnsteer.measure.rates import wilson
from nnsteer.requests import SIDES

LABELS = {
    "baseline": "baseline",
    "unconditional": "steered always",
    "conditional": "steered when harmful",
    "complement": "steered unless harmful",
    "random": "random direction",
}
MEASURED = {"baseline": "base", "unconditional": "+ refusal", "conditional": "+ condition"}  # CAST Table 3's columns


def summarise(folder: Folder) -> dict:
    """The content of summary.json."""
    rows, condition = folder.read_lines("rows.jsonl"), folder.read_json("condition.json")
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
    return {"rate": rate.rate, "low": rate.low, "high": rate.high, "n": rate.n, "broken": broken}


def tables(summary: dict) -> list[Table]:
    """The tables for the terminal."""
    rates = Table(title="Refused on the test split, with 95 % Wilson intervals", title_justify="left")
    for column in ("", "harmful", "harmless", "broken"):
        rates.add_column(column, justify="left" if not column else "right")
    for variant, label in LABELS.items():
        harmful, harmless = (summary["variants"][variant][side] for side in SIDES)
        rates.add_row(label, interval(harmful), interval(harmless), f"{harmful['broken']:.1%} / {harmless['broken']:.1%}")
    c = summary["condition"]
    sign = ">" if c["fires_when"] == "above" else "<="
    condition = Table(title=f"Condition: score at layer {c['layer']} {sign} {c['threshold']:.5g}", title_justify="left")
    for column in ("", "F1", "precision", "recall"):
        condition.add_column(column, justify="left" if not column else "right")
    for split in c["f1"]:
        condition.add_row(split, *(f"{c[name][split]:.3f}" for name in ("f1", "precision", "recall")))
    return [rates, condition, paper_table()]


def interval(cell: dict) -> str:
    """`97.8 % [95.2, 99.0]`."""
    return f"{100 * cell['rate']:.1f} % [{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]"


def paper_table() -> Table:
    """The figures that CAST reports; not measured here."""
    table = Table(title="For comparison: the paper's figures (CAST, Table 3), harmful / harmless refusal %", title_justify="left")
    table.add_column("model")
    for label in MEASURED.values():
        table.add_column(label, justify="right")
    for row in bundled("cast_table3.jsonl"):
        table.add_row(row["model"], *("{:.1f} / {:.1f}".format(*row[name]) for name in MEASURED))
    return table
