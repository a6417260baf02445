"""What a skills run's options stand for: its model, the places to steer, and its documents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from nnsteer import fit
from nnsteer.command import at_least_one
from nnsteer.errors import UserError
from nnsteer.model.layout import check_layers, num_layers
from nnsteer.model.load import ModelFiles, find_model
from nnsteer.model.options import ModelOptions
from nnsteer.program.span import ALL, Last, Reading
from nnsteer.study.run import Fit
from nnsteer.texts.contrast import ContrastSet, Text
from nnsteer.texts.sets import PromptSet
from nnsteer.texts.skills import DOMAINS, Domains, load_documents
from nnsteer.texts.source import Prompt

__all__ = ["ModelOptions"]
READ: dict[str, Reading] = {"last": Last(), "all": ALL}
SEVERAL = "give layers such as 10 or, to steer several together, 10+15"
Layers = tuple[int, ...]
Config = Any
"""A skills run's Config."""
from_means: Fit = lambda runner, contrast, sites, over, _, watch: (  # noqa: E731
    fit.mean_difference(runner.moments(contrast, sites, over, watch=watch))
)
"""Reads documents batch by batch, here as on a server."""


def model(config: Config) -> tuple[ModelFiles, dict[str, Layers]]:
    """The model's files, and the places to steer."""
    files = find_model(config.model, config.revision, templated=False)
    places = read_places(config.layers, num_layers(files.config))
    return replace(files, chat=replace(files.chat, max_tokens=config.max_tokens)), places


def read_places(given: Sequence[str] | None, layers: int) -> dict[str, Layers]:
    """Places to steer by name: `layer 3`, or `layers 1+2` for several at once."""
    middle = [f"{layers // 2 - 1}+{layers // 2}"] if layers > 1 else []
    words = [*map(str, range(layers)), *middle] if given is None else given
    if not words:
        raise UserError(f"--layers: names none; {SEVERAL}")
    places = {}
    for word in words:
        if not re.fullmatch(r"\d+(\+\d+)*", word):
            raise UserError(f"--layers {word}: not a layer; {SEVERAL}")
        place = tuple(sorted({int(layer) for layer in word.split("+")}))
        check_layers(place, layers)
        places[f"layer{'s' * (len(place) > 1)} {'+'.join(map(str, place))}"] = place
    return places


def domains(config: Config) -> Domains:
    """As many documents as the run can come to; drifting, others at each step of a walk."""
    steps = len(config.coefficients) if config.drifting else 1
    sizes = config.fit_documents, config.tune_documents * steps, config.test_documents * steps
    sources = config.skill, config.retained
    return Domains(*(load_documents(source, sizes, config.seed) for source in sources))


def contrast(domains: Domains) -> ContrastSet:
    """What is retained against the skill, to fit on."""
    sides = domains.retained.fit, domains.skill.fit
    return ContrastSet(*(tuple(Text(document.text) for document in side) for side in sides))


def sets(config: Config, domains: Domains, split: str, step: int) -> list[PromptSet]:
    """The documents of each domain at the step-th coefficient of a walk: the first of the split or,
    drifting, the next ones; after the last come the first again. Their kinds are their numbers."""
    most = {"tune": config.tune_documents, "test": config.test_documents}[split]
    sets = []
    for domain in DOMAINS:
        documents = domains.of(domain, split)
        size = min(most, len(documents))
        first = step * size if config.drifting else 0
        numbers = range(first, first + size)
        prompts = [Prompt(documents[i % len(documents)].text, str(i)) for i in numbers]
        sets.append(PromptSet(f"{domain} {split}", tuple(prompts)))
    return sets


def check(config: Config) -> None:
    """Refuses numbers that no run can use."""
    at_least_one(config, "fit_documents", "tune_documents", "test_documents", "batch_size")
    tokens, ladder = config.max_tokens, config.coefficients
    if tokens < 2:
        raise UserError(f"--max-tokens {tokens}: must be at least 2, for a token to be predicted")
    rises = len(ladder) > 1 and ladder[0] == 0 and list(ladder) == sorted(set(ladder))
    if not rises or not all(map(isfinite, ladder)):
        numbers = " ".join(f"{c:g}" for c in ladder)
        raise UserError(f"--coefficients {numbers}: must rise from 0, such as 0 0.5 1 2 4")
