"""What a study is made of, and the key of every result: a hash of all that determines it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from nnsteer.encode import Store
from nnsteer.measure.kinds import Measure
from nnsteer.program import Program
from nnsteer.prompts import Prompt
from nnsteer.runner import Runner

BASELINE = "baseline"


@dataclass(frozen=True)
class Variant:
    """A program under a name. `axes` says where it lies in the grid that made it, {} for one that stands alone."""

    name: str
    program: Program
    axes: Mapping[str, str | float]


@dataclass(frozen=True)
class PromptSet:
    """Prompts that are reported on together."""

    name: str
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True)
class Study:
    """Every variant is run on every prompt, and every measure taken of it. `controls` names each variant's random control."""

    variants: tuple[Variant, ...]
    sets: tuple[PromptSet, ...]
    measures: tuple[Measure, ...]
    controls: Mapping[str, str]
    max_new_tokens: int = 24
    recommend: Mapping[str, Any] | None = None
    """[recommend] of the file, for the report."""


class Question(NamedTuple):
    """One prompt under one variant, and the key of its answer."""

    variant: Variant
    set: str
    prompt: Prompt
    key: str


def questions(study: Study, runner: Runner) -> Iterator[Question]:
    """Every prompt of every set under every variant."""
    model = [runner.model.weights, runner.chat.fingerprint(), study.max_new_tokens]
    for variant in study.variants:
        program = fingerprint(variant.program)
        for prompts in study.sets:
            for prompt in prompts.prompts:
                yield Question(variant, prompts.name, prompt, hashed([program, prompt.text, *model]))


def row_key(question: Question, measure: Measure) -> str:
    """The key of one measure of one answer."""
    return hashed([question.key, question.variant.name, question.set, measure.name, measure.settings])


def fingerprint(program: Program) -> str:
    """A hash of all that a program is. Raises UserError for an op that is a function: a study needs data."""
    store = Store()
    return hashed([store.encode(program), [fitted.fingerprint for fitted in store.numbers]])


def hashed(value: object) -> str:
    """Twenty hex digits of a JSON value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:20]
