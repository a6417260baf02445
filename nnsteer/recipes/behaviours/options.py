"""What a behaviours run's options stand for: the behaviours with their items, the model with the
layers of the grid, and general text."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from random import Random
from typing import Any

import numpy as np

from nnsteer.command import at_least_one
from nnsteer.errors import UserError
from nnsteer.measure.kinds import fingerprint
from nnsteer.model.layout import check_layers, num_layers
from nnsteer.model.load import ModelFiles, find_model
from nnsteer.model.options import ModelOptions
from nnsteer.program.names import SPANS, SpanName
from nnsteer.texts import documents
from nnsteer.texts.behaviours import Behaviour, Form, contrast, load_behaviour
from nnsteer.texts.sets import PromptSet
from nnsteer.texts.source import Prompt, load_texts

__all__ = ["SPANS", "ModelOptions", "SpanName", "contrast"]
MOST_LAYERS = 8  # of the grid, when none are given; the paper's 32-layer model has eight
Config = Any
"""A behaviours run's Config."""


def behaviours(config: Config) -> list[Behaviour]:
    """The behaviours with their items."""
    form = Form(config.question, config.opener)
    loaded = [load_behaviour(text, form, config.seed) for text in config.behaviours]
    check_behaviours(config, [behaviour.name for behaviour in loaded])
    return loaded


def model(config: Config) -> tuple[ModelFiles, list[int]]:
    """The model's files, and the layers of the grid, with those that are given for other steps."""
    files = find_model(config.model, config.revision, templated=config.template)
    depth = num_layers(files.config)
    layers = {*(config.layers or spaced(depth)), *(config.simultaneous_layers or ())}
    if config.combined_layer is not None:
        layers.add(config.combined_layer)
    check_layers(sorted(layers), depth)
    return files, sorted(layers)


def spaced(layers: int) -> tuple[int, ...]:
    """All layers of a small model, MOST_LAYERS of a larger one."""
    return tuple(np.linspace(0, layers - 1, min(layers, MOST_LAYERS)).round().astype(int).tolist())


def general_text(config: Config) -> PromptSet:
    """The texts of the alignment tax, drawn by the seed; one that is drawn twice counts once."""
    texts = load_texts(config.text, "text") if config.text else documents.prose("test")
    drawn = Random(config.seed).sample(texts, min(config.texts, len(texts)))
    return PromptSet("text", tuple(map(Prompt, dict.fromkeys(drawn))))


def fingerprints(behaviours: Sequence[Behaviour], text: PromptSet) -> dict[str, str]:
    """Of all that is read."""
    items = {b.name: fingerprint([b.fit, b.tune, b.test]) for b in behaviours}
    return {**items, "text": fingerprint([prompt.text for prompt in text.prompts])}


def check(config: Config) -> None:
    """Refuses numbers that no run can use."""
    at_least_one(config, "texts", "batch_size")
    for name in ("coefficients", "scalars"):
        for value in getattr(config, name):
            if not isfinite(value) or value <= 0:
                wanted = "must be finite and above 0, such as 1.5; both signs are tried"
                raise UserError(f"--{name} {value}: {wanted}")
    if not 0 <= config.max_faulty <= 1:
        wanted = "must be a share from 0 to 1, such as 0.05"
        raise UserError(f"--max-faulty {config.max_faulty}: {wanted}")


def check_behaviours(config: Config, names: Sequence[str]) -> None:
    """Refuses names and layers that do not go together."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        there = f"{', '.join(twice)} is given twice"
        raise UserError(f"--behaviours: {there}; name them apart with NAME=SOURCE")
    ways = {"mean", "sum", "weighted mean", "weighted sum", "simultaneous"}
    if taken := sorted((ways | {f"random {name}" for name in names}).intersection(names)):
        there = f"{', '.join(taken)} is the name of a way to steer"
        raise UserError(f"--behaviours: {there}; give another with NAME=SOURCE")
    layers = config.simultaneous_layers
    if layers and len(layers) != len(names):
        counts = f"{len(layers)} for {len(names)} behaviours"
        raise UserError(f"--simultaneous-layers: {counts}; give one for each")
