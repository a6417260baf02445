"""What a measure is: a name, the settings that decide its values, and a function to a value for
each prompt under its program."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nnsteer.model.runner import Runner
from nnsteer.program.program import Program
from nnsteer.texts.source import Prompt

Value = float | Mapping[str, float | str]
"""A number, NaN where it could not be had; or several that come from one pass, by name."""


class Answer(NamedTuple):
    """A generated answer to one prompt."""

    prompt: Prompt
    text: str
    ids: tuple[int, ...]
    """Its tokens, without the end token."""


@dataclass(frozen=True)
class AnswerMeasure:
    """Judges answers that are there already, by what they say."""

    name: str
    settings: str
    """Names everything else that decides its values; two measures with equal names and settings are
    the same."""
    binary: bool
    """Whether its values are 0 or 1, so that their mean is a rate."""
    values: Callable[[Sequence[Answer]], Sequence[float]]


@dataclass(frozen=True)
class ReadingMeasure:
    """Judges answers that are there already, by how the unsteered model reads them: a pass over
    each batch."""

    name: str
    settings: str
    binary: bool
    values: Callable[[Runner, Sequence[Answer]], Sequence[Value]]


@dataclass(frozen=True)
class ModelMeasure:
    """Asks the steered model itself, a pass over each batch: `values(runner, programs, prompts)`,
    one program for each prompt."""

    name: str
    settings: str
    binary: bool
    values: Callable[[Runner, Sequence[Program], Sequence[Prompt]], Sequence[Value]]
    unsteered_too: bool = False
    """Whether each batch has every prompt in it unsteered besides."""


Measure = AnswerMeasure | ReadingMeasure | ModelMeasure


def fingerprint(value: object) -> str:
    """Sixteen hex digits of a JSON value, for settings that are too long to be spelled out."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
