"""What a study is made of, and the key of every result: a hash of all that determines it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nnsteer.measure.kinds import Measure, OfModel
from nnsteer.model.chat import Chat
from nnsteer.program.encode import Store
from nnsteer.program.identity import ModelId
from nnsteer.program.program import Program
from nnsteer.texts.source import Prompt

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
    planes: Mapping[str, str] = field(default_factory=dict)
    """For the report: the file in which each direction's texts are projected, by the direction's name."""
    scores: Mapping[str, str] = field(default_factory=dict)
    """For the report: the file of each condition's scores, by the condition's name."""

    @property
    def generates(self) -> bool:
        """Whether some measure needs answers."""
        return not all(isinstance(measure, OfModel) for measure in self.measures)


class Question(NamedTuple):
    """One prompt under one variant. The key of its answer is the same wherever the program, the prompt and the model are, so
    that a variant that is renamed keeps its results."""

    variant: Variant
    set: str
    prompt: Prompt
    key: str


def questions(study: Study, model: ModelId, chat: Chat) -> Iterator[Question]:
    """Every prompt of every set under every variant."""
    asked_of = [model.weights, chat.fingerprint(), study.max_new_tokens]
    for variant in study.variants:
        program = fingerprint(variant.program)
        for prompts in study.sets:
            for prompt in prompts.prompts:
                yield Question(variant, prompts.name, prompt, hashed([program, prompt.text, *asked_of]))


def value_key(question: Question, measure: Measure) -> str:
    """The key of one measure of one answer."""
    return hashed([question.key, measure.name, measure.settings])


def fingerprint(program: Program) -> str:
    """A hash of all that a program is. Raises UserError for an op that is a function: a study needs data."""
    store = Store()
    return hashed([store.encode(program), [fitted.fingerprint for fitted in store.numbers]])


def hashed(value: object) -> str:
    """Twenty hex digits of a JSON value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:20]
