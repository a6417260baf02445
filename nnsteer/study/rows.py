"""The lines of a study's files. A key names what a line holds; variant, set and kind where it stands in the study.

Whatever was had once is kept: lines of an earlier version of the study move to earlier_*.jsonl, and come back when it does; a
variant that was only renamed has its lines copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nnsteer.folder import Folder, unique
from nnsteer.measure.kinds import Measure
from nnsteer.study.cells import Question, value_key

ANSWERS, VALUES, EARLIER = "completions.jsonl", "rows.jsonl", "earlier_"


class Place(NamedTuple):
    """One line's key, and where it stands."""

    key: str
    variant: str
    set: str
    kind: str


class Keyed(NamedTuple):
    """A question, and the key of what is asked of it: its answer, or a value."""

    key: str
    question: Question

    @property
    def place(self) -> Place:
        """Where the result stands."""
        return Place(self.key, self.question.variant.name, self.question.set, self.question.prompt.kind)


def of_answers(asked: Sequence[Question]) -> list[Keyed]:
    """Each question with its answer's key."""
    return [Keyed(question.key, question) for question in asked]


def of_values(asked: Sequence[Question], measure: Measure) -> list[Keyed]:
    """Each question with its value's key."""
    return [Keyed(value_key(question, measure), question) for question in asked]


def of_row(row: dict) -> Place:
    """Where a line stands."""
    return Place(*(row[name] for name in Place._fields))


def sort_out(folder: Folder, name: str, wanted: Iterable[Place]) -> None:
    """Leaves in a file the lines that the study has, and keeps the others in another file."""
    places = dict.fromkeys(wanted)
    here, earlier = folder.read_lines(name), folder.read_lines(EARLIER + name)
    there = {of_row(row): row for row in unique((*here, *earlier), Place._fields)}
    known = {row["key"]: row for row in there.values()}
    inside = [there[p] if p in there else known[p.key] | p._asdict() for p in places if p.key in known]
    if len(inside) == len(here) and all(of_row(row) in places for row in here):
        return
    # the copy first: a kill between the two writes leaves a line twice, which the next start makes one of
    folder.write_lines(EARLIER + name, [row for p, row in there.items() if p not in places])
    folder.write_lines(name, inside)


def forget_failures(folder: Folder) -> None:
    """Removes lines whose value could not be had, a judge's time-out for one, so that it is asked for again."""
    rows = folder.read_lines(VALUES)
    had = [row for row in rows if row["value"] is not None]
    if len(had) < len(rows):
        folder.write_lines(VALUES, had)


def missing(asked: Sequence[Keyed], have: set[str]) -> list[Keyed]:
    """One question for each key that is not there yet. The longest prompts come first, so that memory runs out at once or not at
    all; the variants of a prompt stand together."""
    first: dict[str, Keyed] = {}
    for one in asked:
        if one.key not in have:
            first.setdefault(one.key, one)
    return sorted(first.values(), key=lambda one: (-len(one.question.prompt.text), one.question.prompt.text))
