"""What every page, figure and table has in common."""

from __future__ import annotations

import base64
import math
import shlex
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

CYCLE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#222222")  # Okabe & Ito: told apart by everyone
MARKERS = "osD^vPX"  # beside the colours, for print in grey
GREY = "#8a8a8a"
NONE = "–"


def plain(figure: Figure, axes: Axes) -> Figure:
    """Without the box's upper and right edge."""
    axes.spines[["top", "right"]].set_visible(False)
    return figure


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


def template(name: str) -> Template:
    """A page beside this file. What it shows is escaped; a name that was forgotten is an error."""
    here = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=here, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"number": number, "gap": gap, "ends": ends, "probability": probability}
    return environment.get_template(name)


def encoded(image: Path) -> str:
    """A PNG as a data address."""
    return "data:image/png;base64," + base64.b64encode(image.read_bytes()).decode()


def repeated(command: list[str]) -> str:
    """The command line that was given, as it is typed: `python -m nnsteer ...` for a module's path."""
    parts = Path(command[0]).with_suffix("").parts
    if command[0].endswith(".py") and "nnsteer" in parts:
        start = len(parts) - 1 - parts[::-1].index("nnsteer")
        return shlex.join(["python", "-m", ".".join(parts[start:]).removesuffix(".__main__"), *command[1:]])
    return shlex.join([Path(command[0]).name, *command[1:]])
