"""What a page is made of: sections of text, tables, figures and answers. One template shows those
of every recipe and study."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from nnsteer.folder import Folder
from nnsteer.report.look import encoded, plain_table, repeated, show
from nnsteer.report.terms import TERMS

WIDTH = (
    3.6  # inches: a column of a paper; its 9 points are 11 pixels high on a phone 360 pixels wide
)
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
FACTS = ("settings", "model", "data", "versions")
"""What config.json says that decides the results."""
INTERVAL = re.compile(r"\[-?[\d.e+-]+, -?[\d.e+-]+\]|[+-]?[\d.]+ (?:%|points)|p (?:=|&lt;) [\d.]+")


@dataclass(frozen=True)
class Picture:
    """A figure: its file's name, what it shows and how it is read, and how it is drawn."""

    name: str
    caption: str
    make: Callable[[], Figure]


@dataclass(frozen=True)
class Table:
    """The same on the page and in the terminal, where a folded one is left out. `marked` are the
    rows that stand out."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    marked: frozenset[int] = frozenset()
    folded: bool = False


@dataclass(frozen=True)
class Answer:
    """What was answered, in a word or more what is said of it, and whether it is one to look at."""

    text: str
    tags: tuple[str, ...] = ()
    note: str = ""
    ringed: bool = False


@dataclass(frozen=True)
class Asked:
    """A prompt, its kind (`set` or `set: kind`), and the answers to it by variant."""

    prompt: str
    kind: str
    answers: Mapping[str, Sequence[Answer]]


@dataclass(frozen=True)
class Answers:
    """A row for each prompt, a column for each variant, the unsteered one first. `ring` says what
    the ringed answers are."""

    variants: Sequence[str]
    asked: Sequence[Asked]
    ring: str = ""

    @property
    def kinds(self) -> list[str]:
        """What can be chosen: each set, and each kind in it."""
        kinds = {asked.kind for asked in self.asked}
        return sorted(kinds | {kind.partition(": ")[0] for kind in kinds})

    @property
    def long(self) -> bool:
        """Whether the answers are more than a word or two, so that columns must be wide."""
        cells = [cell for asked in self.asked for cell in asked.answers.values()]
        return any(len(answer.text) > 20 for cell in cells for answer in cell)


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; `terms` are those of TERMS that are first used here."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Picture] = ()
    answers: Answers | None = None
    terms: Sequence[str] = ()

    @property
    def key(self) -> str:
        """Its place on the page."""
        return file_name(self.title)


@dataclass(frozen=True)
class Page:
    """What it is called, one sentence on what was done and found, what was done in more words, its
    sections, and the raw files beside it."""

    title: str
    lead: str
    text: Sequence[str]
    sections: Sequence[Section]
    raw: Sequence[str] = ()


def publish(folder: Folder, page: Page) -> None:
    """Draws the figures, writes report.html, and prints the sentence and the tables."""
    (folder / "figures").mkdir(exist_ok=True)
    taken: set[str] = set()
    drawn = []
    for section in page.sections:
        figures = [draw(folder, picture, taken) for picture in section.figures]
        drawn.append(replace(section, figures=figures))
    page = replace(page, sections=drawn)
    folder.write_text("report.html", html(page, folder, folder.read_json("config.json")))
    tell(page)
    print(f"{folder / 'report.html'}  the page with figures and every answer")


def tell(page: Page) -> None:
    """The sentence and the tables in the terminal."""
    print(page.lead)
    for section in page.sections:
        for table in section.tables:
            if table.rows and not table.folded:
                printed = plain_table(*table.columns)
                for row in table.rows:
                    printed.add_row(*(cell.replace("[", r"\[") for cell in row))
                show(table.title or section.title, printed)


def draw(folder: Folder, picture: Picture, taken: set[str]) -> Picture:
    """Writes a picture into figures/ as PNG and PDF, and returns it under the name that it got,
    which is put into `taken`."""
    name = picture.name
    while name in taken:  # `harm` and `~harm` are one name among files
        name += "-2"
    taken.add(name)
    with matplotlib.rc_context(STYLE):
        figure = picture.make()
        figure.savefig(folder / "figures" / f"{name}.png", dpi=200)
        figure.savefig(folder / "figures" / f"{name}.pdf", metadata={"CreationDate": None})
    return replace(picture, name=name)


def html(page: Page, folder: Folder, config: Mapping) -> str:
    """The page's HTML, its figures inside it. What it shows is escaped; a name that was forgotten
    is an error."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["whole"] = whole
    facts = {name: config[name] for name in FACTS if name in config}
    if folder.has("seconds.json"):
        facts["seconds"] = folder.read_json("seconds.json")
    return templates.get_template("page.html").render(
        page=page,
        model=config.get("model"),
        command=repeated(config["command"]) if "command" in config else None,
        facts={name: lines(value) for name, value in facts.items()},
        terms=TERMS,
        image=lambda picture: encoded(folder / "figures" / f"{picture.name}.png"),
        raw=[file for file in page.raw if folder.has(file)],
    )


def whole(text: str) -> Markup:
    """Escaped, no line broken inside a number with its unit or inside an interval."""
    return Markup(INTERVAL.sub(r'<span class="whole">\g<0></span>', str(escape(text))))


def lines(facts: object) -> list[str]:
    """`name = value` for each entry."""
    if not isinstance(facts, dict):
        return [str(facts)]
    return [f"{name} = {json.dumps(value)}" for name, value in facts.items()]


def file_name(*words: str) -> str:
    """Words as a file's name."""
    return "-".join(re.findall(r"[a-z0-9.]+", " ".join(words).lower()))
