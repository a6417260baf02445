"""What is asked: prompts under programs, each question with a key, a hash of all that determines
its answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from nnsteer.measure.kinds import Measure
from nnsteer.model.chat import Chat
from nnsteer.program.encode import Store
from nnsteer.program.identity import ModelId
from nnsteer.program.program import Program
from nnsteer.texts.conversation import hashable
from nnsteer.texts.sets import PromptSet
from nnsteer.texts.source import Prompt

BASELINE = "baseline"


@dataclass(frozen=True)
class Variant:
    """A way to steer under a name: one program, or several that the prompts take in turn, as random
    controls do. `axes` are its settings: where it lies in the grid that made it."""

    name: str
    programs: Program | tuple[Program, ...]
    axes: Mapping[str, str | float] = field(default_factory=dict)

    @property
    def in_turn(self) -> tuple[Program, ...]:
        """Its programs: the i-th prompt takes the i-th, and after the last the first again."""
        return (self.programs,) if isinstance(self.programs, Program) else self.programs


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn: greedily at temperature 0, else by the seed and by the prompt's number
    and the sample's alone, so that all variants share their noise."""

    max_new_tokens: int = 24
    samples: int = 1
    temperature: float = 0.0
    seed: int = 0


GREEDY = Sampling()


class Question(NamedTuple):
    """One prompt under one program. The key of its answer is the same wherever the program, the
    prompt and the model are, so that a variant that is renamed keeps its results."""

    variant: str
    set: str
    prompt: Prompt
    program: Program
    sample: int
    noise: int
    """The number by which its sample is drawn."""
    key: str


def questions(
    variants: Iterable[Variant],
    sets: Iterable[PromptSet],
    model: ModelId,
    chat: Chat,
    sampling: Sampling,
) -> Iterator[Question]:
    """Every prompt of every set under every variant."""
    prompts = [(prompt_set.name, prompt) for prompt_set in sets for prompt in prompt_set.prompts]
    asked_of = [model.weights, chat.fingerprint(), sampling.max_new_tokens]
    program_hash = cache(fingerprint)
    for variant in variants:
        for number, (set_name, prompt) in enumerate(prompts):
            program = variant.in_turn[number % len(variant.in_turn)]
            what = [program_hash(program), hashable(prompt.text), *asked_of]
            for sample in range(sampling.samples):
                noise = number * sampling.samples + sample
                drawn = [sampling.temperature, sampling.seed, noise]
                key = hashed([*what, *drawn] if sampling.temperature else what)
                yield Question(variant.name, set_name, prompt, program, sample, noise, key)


def value_key(question: Question, measure: Measure) -> str:
    """The key of one measure of one answer."""
    return hashed([question.key, measure.name, measure.settings])


def fingerprint(program: Program) -> str:
    """A hash of all that a program is. Raises UserError for an op that is a function: a study needs
    data."""
    store = Store()
    return hashed([store.encode(program), [fitted.fingerprint for fitted in store.numbers]])


def hashed(value: object) -> str:
    """Twenty hex digits of a JSON value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:20]
