"""What a page is made of: sections of text, tables, figures and answers. One template shows those of every recipe and study."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from nnsteer.folder import Folder
from nnsteer.report.look import encoded, plain_table, repeated, show

WIDTH = 3.6  # inches: a column of a paper; its 9 points are 11 pixels high on a phone 360 pixels wide
FONTS = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
}
TERMS = {
    "fit, tune and test split": "directions are fitted on the first, everything is chosen on the second, and the third, which "
    "neither has seen, is what is reported",
    "score": "the cosine of an activation with the condition's direction; the condition fires beyond its threshold",
    "F1": "the harmonic mean of precision (the share of alarms that are right) and recall (the share of cases found); at most 1",
    "broken": "an answer that is empty, runs in circles, or is absurd to the unsteered model; neither refused nor answered",
    "standardisation": "1 where steering strength alpha means the same for every prompt: nothing is refused at alpha 0 and "
    "everything at alpha 1; it is agreement times ends: 1 minus the area between the harmful and the harmless curve, times the "
    "mean share of what is answered at 0 and refused at 1. Curves that ignore alpha have at most 1/2",
    "random direction": "a direction of the same length that means nothing; what it changes is no effect",
    "p": "the chance of at least such a difference where there is none: McNemar's exact test for rates, a sign-flip test for "
    "means; * p < 0.05 after Holm's correction for all that are compared",
    "interval": "95 %: Wilson's for a rate, a bootstrap over prompts otherwise",
    "matching score": "the share of items answered as the behaviour would have it",
    "mode collapse (MC)": "more than 95 % of the answers are one letter",
    "cosine": "1 for the same direction, 0 for unrelated ones, -1 for opposite ones",
    "T@x": "the share of the rest's accuracy that is retained where the skill's has fallen to x, interpolated",
    "gap": "the most by which the share retained exceeds the skill's; a maximum, so that noise lifts it",
    "top-1, top-10": "how often the next token is the model's first guess, or among its first ten",
}
INTERVAL = re.compile(r"\[-?[\d.e+-]+, -?[\d.e+-]+\]|[+-]?[\d.]+ (?:%|points)|p [=<] [\d.]+")


@dataclass(frozen=True)
class Picture:
    """A figure: its file's name, what it shows and how it is read, and how it is drawn."""

    name: str
    caption: str
    make: Callable[[], Figure]


@dataclass(frozen=True)
class Table:
    """The same on the page and in the terminal, where a folded one is left out. `marked` are the rows that stand out."""

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
    """A row for each prompt, a column for each variant, the unsteered one first. `ring` says what the ringed answers are."""

    variants: Sequence[str]
    asked: Sequence[Asked]
    ring: str = ""

    @property
    def kinds(self) -> list[str]:
        """What can be chosen: each set, and each kind in it."""
        kinds = [asked.kind for asked in self.asked]
        return sorted({*kinds, *(kind.partition(": ")[0] for kind in kinds)})

    @property
    def long(self) -> bool:
        """Whether the answers are more than a word or two, so that columns must be wide."""
        return any(len(one.text) > 20 for asked in self.asked for own in asked.answers.values() for one in own)


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
    """A page: what it is called, one sentence on what was done and found, what was done in more words, and its sections."""

    title: str
    lead: str
    text: Sequence[str]
    sections: Sequence[Section]
    raw: Sequence[str] = ()
    """Files that lie beside it."""


def publish(folder: Folder, page: Page) -> None:
    """Draws the figures, writes report.html, and prints the sentence and the tables."""
    taken: set[str] = set()
    page = replace(page, sections=[replace(s, figures=draw(folder, s.figures, taken)) for s in page.sections])
    config = folder.read_json("config.json")
    folder.write_text("report.html", html(page, folder, config))
    tell(page)
    print(f"{folder / 'report.html'}  the page with figures and every answer")


def tell(page: Page) -> None:
    """The sentence and the tables in the terminal."""
    print(page.lead)
    for section in page.sections:
        for table in section.tables:
            if not table.folded and table.rows:
                made = plain_table(*table.columns)
                for row in table.rows:
                    made.add_row(*(cell.replace("[", r"\[") for cell in row))
                show(table.title or section.title, made)


def draw(folder: Folder, pictures: Iterable[Picture], taken: set[str]) -> list[Picture]:
    """Writes each picture into figures/ as PNG and PDF, and returns them under the names that they got."""
    (folder / "figures").mkdir(exist_ok=True)
    drawn = []
    for picture in pictures:
        name = picture.name
        while name in taken:  # `harm` and `~harm` are one name among files
            name += "-2"
        taken.add(name)
        with matplotlib.rc_context(FONTS):
            figure = picture.make()
            figure.savefig(folder / "figures" / f"{name}.png", dpi=200)
            figure.savefig(folder / "figures" / f"{name}.pdf", metadata={"CreationDate": None})
        drawn.append(replace(picture, name=name))
    return drawn


def html(page: Page, folder: Folder, config: Mapping) -> str:
    """The page's HTML, its figures inside it. What it shows is escaped; a name that was forgotten is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"whole": whole}
    facts = {h: lines(config[h]) for h in ("settings", "model", "data", "versions") if h in config}
    if folder.has("seconds.json"):
        facts["seconds"] = lines(folder.read_json("seconds.json"))
    return environment.get_template("page.html").render(
        page=page,
        model=config.get("model"),
        command=repeated(config["command"]) if "command" in config else None,
        facts=facts,
        terms=TERMS,
        image=lambda picture: encoded(folder / "figures" / f"{picture.name}.png"),
        raw=[file for file in page.raw if folder.has(file)],
    )


def whole(text: str) -> Markup:
    """Escaped, no line broken inside a number with its unit or inside an interval."""
    parts, end = [], 0
    for found in INTERVAL.finditer(text):
        parts += [escape(text[end : found.start()]), Markup('<span class="whole">{}</span>').format(found[0])]
        end = found.end()
    return Markup("").join([*parts, escape(text[end:])])


def lines(facts: object) -> list[str]:
    """`name = value` for each entry."""
    if not isinstance(facts, dict):
        return [str(facts)]
    return [f"{name} = {json.dumps(value)}" for name, value in facts.items()]


def file_name(*words: str) -> str:
    """Words as a file's name."""
    return "-".join(re.findall(r"[a-z0-9.]+", " ".join(words).lower()))
