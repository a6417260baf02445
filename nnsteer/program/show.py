"""How the nouns show themselves in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A small HTML table under a title; every text is escaped."""
    cells = [line("th", head), *(line("td", row) for row in rows)]
    return f"<p>{escape(title)}</p><table>{''.join(cells)}</table>"


def line(tag: str, texts: Iterable[object]) -> str:
    """One row of a table."""
    return "".join(f"<{tag}>{escape(str(text))}</{tag}>" for text in texts).join(("<tr>", "</tr>"))


def joined(texts: Iterable[object]) -> str:
    """Each text once, in the order given."""
    return " and ".join(dict.fromkeys(map(str, texts)))


def shortened(text: str, most: int = 120) -> str:
    """The text, cut where it is longer than `most` characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
