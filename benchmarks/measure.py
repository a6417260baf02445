"""What a work yields: one value of each subject per round. A subject does the work once and says
what it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

Subject = Callable[[], float]
"""Does the work once; its seconds, or another unit of the work's."""


@dataclass(frozen=True)
class Measured:
    """One value a round of each subject, none for a peer that is not there."""

    work: str
    model: str
    unit: str
    values: Mapping[str, list[float]]
    floor: str | None = None
    """The subject that the others are compared with."""


def timed(function: Callable[[], object]) -> Subject:
    """A subject in seconds."""

    def once() -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    return once


def rate(amount: float, seconds: Subject) -> Subject:
    """A subject in units a second, from one in seconds."""
    return lambda: amount / seconds()


def paired(
    work: str, model: str, unit: str, subjects: Mapping[str, Subject | None], rounds: int
) -> Measured:
    """Runs every subject once to warm up, then in turn, there and back, so that the machine's moods
    fall on all of them. The first subject is the floor."""
    there = {name: subject for name, subject in subjects.items() if subject is not None}
    values: dict[str, list[float]] = {name: [] for name in subjects}
    for turn in range(rounds + 1):
        for name in there if turn % 2 else reversed(there):
            value = there[name]()
            if turn:
                values[name].append(value)
    return Measured(work, model, unit, values, next(iter(subjects)))


def rows(measured: Measured) -> list[dict]:
    """A row per subject: the median, least and most of its values, and the median of its ratios to
    the floor of the same round; all null where a peer is missing."""
    floor = measured.values[measured.floor] if measured.floor else []
    found = []
    for subject, values in measured.values.items():
        ratios = [value / base for value, base in zip(values, floor, strict=False)]
        found.append(
            {
                "work": measured.work,
                "model": measured.model,
                "subject": subject,
                "median": median(values) if values else None,
                "min": min(values, default=None),
                "max": max(values, default=None),
                "ratio_to_floor": median(ratios) if ratios else None,
                "unit": measured.unit,
            }
        )
    return found


def table(found: list[dict]) -> str:
    """Rows as Markdown."""
    lines = [
        "| work | model | subject | median | min | max | ratio to floor | unit |",
        "|---|---|---|---:|---:|---:|---:|---|",
    ]
    for row in found:
        numbers = [
            "" if row[key] is None else f"{row[key]:.4g}"
            for key in ("median", "min", "max", "ratio_to_floor")
        ]
        numbers[0] = numbers[0] or "missing"
        lines.append(
            "| "
            + " | ".join([row["work"], row["model"], row["subject"], *numbers, row["unit"]])
            + " |"
        )
    return "\n".join(lines)
