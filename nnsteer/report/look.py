"""What every page, figure and table has in common."""

from __future__ import annotations

import base64
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

CYCLE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#222222")
"""Okabe & Ito's colours, told apart by everyone."""
MARKERS = "osD^vPX"  # beside the colours, for print in grey
GREY = "#8a8a8a"
NONE = "–"
STAR = 0.05  # corrected p-values below it are starred


def plain_table(*columns: str) -> Table:
    """Numbers to the right, no frame."""
    table = Table(box=SIMPLE)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    return table


def show(heading: str, table: Table) -> None:
    """A table in the terminal, whole: a narrower terminal wraps its lines."""
    needed = Console(width=1000).measure(table).maximum
    out = Console(width=max(needed, Console().width))
    out.print(heading, soft_wrap=True, markup=False)
    out.print(table)


def number(value: float | None, binary: bool) -> str:
    """`97.8 %` for a rate, `0.312` for another value, a dash for none."""
    if value is None or math.isnan(value):
        return NONE
    return f"{100 * value:.1f} %" if binary else f"{value:.3g}"


def gap(value: float | None, binary: bool) -> str:
    """`+45.0 points` between rates, `+0.157` between other values."""
    if value is None or math.isnan(value):
        return NONE
    return f"{100 * value:+.1f} points" if binary else f"{value:+.3g}"


def ends(low: float | None, high: float | None, binary: bool) -> str:
    """`[95.2, 99.0]`, in percent for a rate."""
    if low is None or high is None or math.isnan(low):
        return NONE
    return f"[{100 * low:.1f}, {100 * high:.1f}]" if binary else f"[{low:.3g}, {high:.3g}]"


def probability(p: float | None) -> str:
    """`p = 0.031` or `p < 0.001`."""
    if p is None or math.isnan(p):
        return f"p {NONE}"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def interval(cell: Mapping[str, Any] | None, binary: bool = True) -> str:
    """`97.8 % [95.2, 99.0]`: an estimate, its value under `value` or `rate`; a dash for none."""
    value = None if cell is None else cell["value"] if "value" in cell else cell["rate"]
    if cell is None or value is None:
        return NONE
    return f"{number(value, binary)} {ends(cell['low'], cell['high'], binary)}"


def difference(change: Mapping[str, Any] | None, binary: bool = True) -> str:
    """`+1.9 points [-0.5, 4.3]`, and `, p = 0.031` where it is corrected for its family; a dash for
    none."""
    if change is None or change["value"] is None:
        return NONE
    p = f", {probability(change['p_holm'])}" if "p_holm" in change else ""
    return f"{gap(change['value'], binary)} {ends(change['low'], change['high'], binary)}{p}"


def star(change: Mapping[str, Any] | None) -> str:
    """A star for a difference that holds for its whole family."""
    return "*" if change and change["p_holm"] is not None and change["p_holm"] < STAR else ""


def moved(what: str, before: float | None, after: float | None, binary: bool = True) -> str:
    """`raised WHAT from 36.0 % to 90.0 %`, or `lowered`, or `left WHAT at`."""
    start, end = number(before, binary), number(after, binary)
    if before is None or after is None or start == end:
        return f"left {what} at {end}"
    return f"{'raised' if after > before else 'lowered'} {what} from {start} to {end}"


def encoded(image: Path) -> str:
    """A PNG as a data address."""
    return "data:image/png;base64," + base64.b64encode(image.read_bytes()).decode()


def repeated(command: list[str]) -> str:
    """The command line that was given, as it is typed: `python -m nnsteer ...` for a module's
    path."""
    program, *options = command
    parts = Path(program).with_suffix("").parts
    if not program.endswith(".py") or "nnsteer" not in parts:
        return shlex.join([Path(program).name, *options])
    start = len(parts) - 1 - parts[::-1].index("nnsteer")
    module = ".".join(parts[start:]).removesuffix(".__main__")
    return shlex.join(["python", "-m", module, *options])
