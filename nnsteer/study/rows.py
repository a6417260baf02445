"""The lines of a run's two tables: answers, and values of measures. A key names what a line holds;
variant, set, kind, prompt and sample say where it stands.

Whatever was had once is kept: lines that a changed study no longer has move to earlier_*.jsonl, and
come back when it has them again; what only stands elsewhere now is copied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from nnsteer.folder import Folder, unique
from nnsteer.measure.kinds import Measure
from nnsteer.study.cells import Question, hashed, value_key

LONG, BEGINNING = 2000, 200  # characters
ANSWERS, VALUES, EARLIER = "completions.jsonl", "rows.jsonl", "earlier_"


class Place(NamedTuple):
    """Where a line stands, and the key of what it holds."""

    key: str
    variant: str
    set: str
    kind: str
    prompt: str
    sample: int


class Keyed(NamedTuple):
    """A question, and the key of what is asked of it: its answer, or a value."""

    key: str
    question: Question

    @property
    def place(self) -> Place:
        """Where the result stands."""
        q = self.question
        return Place(self.key, q.variant, q.set, q.prompt.kind, shown(q.prompt.text), q.sample)


@dataclass(frozen=True)
class Row:
    """An answer and what was measured of it, by the measures' names; None for a value that could
    not be had."""

    variant: str
    set: str
    kind: str
    prompt: str
    sample: int
    values: Mapping[str, Any]
    completion: str = ""
    scores: tuple[float, ...] = ()
    """Of each condition of the program."""
    fired: tuple[bool, ...] = ()

    @property
    def position(self) -> tuple:
        """Where it stands: a `Place` without its key."""
        return self.variant, self.set, self.kind, self.prompt, self.sample


def shown(prompt: str) -> str:
    """A prompt as it stands in a line: a document, which would stand there many times, by its
    beginning and a hash."""
    return prompt if len(prompt) <= LONG else f"{prompt[:BEGINNING]} ... {hashed(prompt)}"


def of_answers(questions: Iterable[Question]) -> list[Keyed]:
    """Each question with its answer's key."""
    return [Keyed(question.key, question) for question in questions]


def of_values(questions: Iterable[Question], measure: Measure) -> list[Keyed]:
    """Each question with its value's key."""
    return [Keyed(value_key(question, measure), question) for question in questions]


def place_of(line: dict) -> Place:
    """Where a line stands."""
    return Place(*(line[name] for name in Place._fields))


def lines(folder: Folder, name: str) -> list[dict]:
    """The lines of a file, and those that were set aside for an earlier version of the study."""
    return folder.read_lines(name) + folder.read_lines(EARLIER + name)


def set_aside(folder: Folder, name: str, wanted: Iterable[Place]) -> None:
    """Leaves in a file the lines that the study has, and keeps the others in another file."""
    places = set(wanted)
    here = folder.read_lines(name)
    inside = unique((line for line in here if place_of(line) in places), Place._fields)
    if len(inside) < len(here):
        gone = [line for line in here if place_of(line) not in places]
        aside = unique((*folder.read_lines(EARLIER + name), *gone), Place._fields)
        # the copy first: a kill between the two writes leaves a line in both files, which is no
        # harm
        folder.write_lines(EARLIER + name, aside)
        folder.write_lines(name, inside)


def copy_known(folder: Folder, name: str, asked: Sequence[Keyed]) -> dict[str, dict]:
    """The lines that are known, by key; those of them that were asked for and stand under another
    name, set or kind are added to the file where they stand now."""
    here = folder.read_lines(name)
    known: dict[str, dict] = {}
    for line in (*here, *folder.read_lines(EARLIER + name)):
        known.setdefault(line["key"], line)
    there = {place_of(line) for line in here}
    places = dict.fromkeys(keyed.place for keyed in asked if keyed.key in known)
    new = [known[place.key] | place._asdict() for place in places if place not in there]
    if new:
        folder.append(name, new)
    return known


def forget_failures(folder: Folder) -> None:
    """Removes lines whose value could not be had, a judge's time-out for one, so that it is asked
    for again."""
    rows = folder.read_lines(VALUES)
    had = [row for row in rows if row["value"] is not None]
    if len(had) < len(rows):
        folder.write_lines(VALUES, had)


def missing(asked: Iterable[Keyed], known: Collection[str]) -> list[Keyed]:
    """One question for each key that is not known yet. The longest prompts come first, so that
    memory runs out at once or not at all; the variants of a prompt stand together."""
    first: dict[str, Keyed] = {}
    for keyed in asked:
        if keyed.key not in known:
            first.setdefault(keyed.key, keyed)
    return sorted(first.values(), key=longest_first)


def longest_first(keyed: Keyed) -> tuple[int, str]:
    """Sorts by prompts."""
    text = keyed.question.prompt.text
    return -len(text), text


def read_rows(folder: Folder, sets: Collection[str] | None = None) -> list[Row]:
    """What lies in a run's folder, of these sets or of all: each answer with all that was measured
    of it. Of lines that stand at one place, the first counts."""
    answers: dict[tuple, dict] = {}
    for line in folder.read_lines(ANSWERS):
        answers.setdefault(place_of(line)[1:], line)
    values: dict[tuple, dict[str, Any]] = {position: {} for position in answers}
    for line in folder.read_lines(VALUES):
        values.setdefault(place_of(line)[1:], {}).setdefault(line["measure"], line["value"])
    return [
        joined(position, answers.get(position, {}), of_answer)
        for position, of_answer in values.items()
        if sets is None or position[1] in sets
    ]


def joined(position: Sequence, answer: Mapping, values: Mapping[str, Any]) -> Row:
    """A row from an answer's line, where there is one, and its values."""
    scores, fired = (tuple(answer.get(name, ())) for name in ("scores", "fired"))
    variant, set_name, kind, prompt, sample = position
    text = answer.get("completion", "")
    return Row(variant, set_name, kind, prompt, sample, values, text, scores, fired)
