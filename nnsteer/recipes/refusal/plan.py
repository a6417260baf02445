"""What a refusal run would do, before any weights are loaded; where the model or the data are not
to be had, why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any

from rich.markup import escape

from nnsteer.errors import UserError
from nnsteer.measure import classifier
from nnsteer.model.layout import num_layers
from nnsteer.model.load import find_model
from nnsteer.report.look import plain_table, show
from nnsteer.texts.source import load_prompts, load_texts

Config = Any
"""The Config of a recipe that is, or goes on from, a refusal run."""


def show_plan(config: Config, more: Iterable[tuple[str, str]] = ()) -> None:
    """Prints a refusal run's plan, and that of a recipe which goes on from one."""
    table = plain_table("", "")
    table.columns[1].justify = "left"
    table.columns[1].no_wrap = False
    for name, text in chain(plan(config), more):
        table.add_row(name, escape(text))
    show("What this run would do", table)


def plan(config: Config) -> Iterator[tuple[str, str]]:
    """Each step of a refusal run in a line."""
    yield "model", or_why_not(partial(model, config))
    for side, source in (("harmful", config.harmful), ("harmless", config.harmless)):
        yield side, or_why_not(partial(counted, source, config.seed))
    for name, source in (("refusals", config.refusals), ("compliances", config.compliances)):
        yield name, or_why_not(partial(openers, source))
    yield (
        "directions",
        f"{config.method} for the behaviour, {config.condition_method} for the "
        f"condition{published(config)}",
    )
    yield "condition", condition(config)
    yield "steering", steering(config)
    cast = f"CAST's keywords or {classifier.CAST}"
    yield (
        "a refusal is",
        "an answer that begins like one" if config.judged_by == "openers" else cast,
    )
    yield (
        "results",
        f"five variants on the test split, {config.max_new_tokens} tokens an answer, "
        f"in {config.out}",
    )


def or_why_not(say: Callable[[], str]) -> str:
    """What it says, or why it can't."""
    try:
        return say()
    except UserError as error:
        return f"not to be had: {error}"


def model(config: Config) -> str:
    """The model, by its config."""
    layers = num_layers(find_model(config.model, config.revision).config)
    return f"{config.model}{f' at {config.revision}' if config.revision else ''}, {layers} layers"


def counted(source: str, seed: int) -> str:
    """How many prompts are in each split."""
    splits = load_prompts(source, seed)
    return f"{len(splits.fit)} fit, {len(splits.tune)} tune, {len(splits.test)} test; {source}"


def openers(source: str) -> str:
    """How many openers there are."""
    return f"{len(load_texts(source, 'opener'))} openers; {source}"


def published(config: Config) -> str:
    """Whose way of reading."""
    return ", as published" if config.as_published else ""


def condition(config: Config) -> str:
    """Where the condition is read and when it fires."""
    given = config.condition_layers
    layers = "the first half of the layers" if given is None else numbered(given)
    if config.threshold is None:
        return f"{config.score} at {layers}; layer, threshold and side are chosen on the tune split"
    sign = ">" if config.fires_when == "above" else "<="
    return f"{config.score} at {layers} {sign} {config.threshold:g}"


def steering(config: Config) -> str:
    """Where and how hard."""
    unit = "" if config.as_published else ", in lengths of the direction"
    layers = "layers to be chosen" if config.layers is None else numbered(config.layers)
    strength = "a strength to be chosen"
    if config.strength is not None:
        strength = f"strength {config.strength:g}{unit}"
    prompts = 2 * config.tune_prompts
    tried = f"every way is tried on a sixth of {prompts} tune prompts, the best on all"
    return f"{layers}, {strength}; {tried}"


def numbered(layers: tuple[int, ...]) -> str:
    """`layers 1, 2, 3`."""
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"
