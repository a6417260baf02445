"""What a run of the implementations found: a page, and its tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from matplotlib.figure import Figure

from nnsteer.folder import Folder
from nnsteer.report.charts import dot, named, panel
from nnsteer.report.section import Page, Picture, Section, Table, publish

ABOUT = (
    "Method: Implementing activation steering (LessWrong). The difference of two words, at length "
    "c, is added to every token of prompt and answer. Each implementation is held against its "
    "site's first: by the logits of the prompt and the unsteered answer, and by the answers."
)
LEAD = "{} of {} implementations answered as their site's first; logits differ by at most {:.1e}."
MOVED = "{site}: the words differ by {length:.2f}; +c moves logits by up to {moved:.2g}."
COLUMNS = "site", "implementation", "largest logit difference", "same texts", "ms per token"
TIME = "Milliseconds per token of an answer at +c: the median round, and from least to most."
CHECKED = "site", "what", "equal", "expected", "found"
YES = {True: "yes", False: "no"}


def write(folder: Folder) -> dict:
    """Writes table.md, the figure and report.html from table.json, prints the tables, and returns
    what table.json holds."""
    facts = folder.read_json("table.json")
    sites, ran = facts["sites"], [row for row in facts["rows"] if "skipped" not in row]
    rows = [[row["site"], row["implementation"], *cells(row)] for row in facts["rows"]]
    time = Picture("time", TIME, partial(times, ran))
    texts = [[sign, *(repr(site["texts"][sign]) for site in sites)] for sign in sites[0]["texts"]]
    said = Table(("", *(site["site"] for site in sites)), texts)
    checks = [
        [c["site"], c["what"], YES[c["equal"]], repr(c["expected"]), repr(c["found"])]
        for c in facts["expected"]
    ]
    moved = [MOVED.format(**site) for site in sites]
    sections = [
        Section("Implementations", moved, [Table((*COLUMNS, "times the first"), rows)], [time]),
        Section("Texts", tables=[said, Table(CHECKED, checks, "What was expected")]),
    ]
    folder.write_text("table.md", "\n\n".join(map(markdown, sections)).strip() + "\n")
    same, most = sum(row["same_texts"] for row in ran), max(row["difference"] for row in ran)
    lead, raw = LEAD.format(same, len(ran), most), ("table.json", "table.md", "config.json")
    publish(folder, Page("One addition, eight implementations", lead, (ABOUT,), sections, raw))
    return facts


def cells(row: dict) -> list[str]:
    """What is said of an implementation."""
    if "skipped" in row:
        return [f"skipped: {row['skipped']}", "", "", ""]
    time = "{:.1f} ({:.1f} to {:.1f})".format(*row["ms_per_token"])
    difference, ratio = f"{row['difference']:.1e}", f"{row['times_first']:.2f}"
    return [difference, YES[row["same_texts"]], time, ratio]


def times(ran: Sequence[dict]) -> Figure:
    """A row for each implementation that ran."""
    figure, axes = panel(0.7 + 0.24 * len(ran))
    for i, row in enumerate(ran):
        median, least, most = row["ms_per_token"]
        dot(axes, i, {"value": median, "low": least, "high": most}, color="black")
    named(axes, [f"{row['implementation']}, {row['site']}" for row in ran])
    axes.set(xlabel="ms per token", xlim=(0, None))
    return figure


def markdown(section: Section) -> str:
    """Its text and its tables."""
    parts = list(section.text)
    for table in section.tables:
        lines = [table.columns, ["---"] * len(table.columns), *table.rows] if table.rows else []
        whole = [[cell.replace("|", r"\|") for cell in line] for line in lines]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in whole))
    return "\n\n".join(parts)
