"""What a refusal run's options stand for: its texts, its model, its measure of refusals, and the
ways to steer among which it chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from math import isfinite
from typing import Any

from nnsteer import fit
from nnsteer.command import at_least_one
from nnsteer.errors import UserError
from nnsteer.measure.classifier import classifier
from nnsteer.measure.kinds import AnswerMeasure
from nnsteer.measure.refusal import by_keywords, by_openers, either
from nnsteer.model.layout import check_layers, num_layers
from nnsteer.model.load import ModelFiles, find_model
from nnsteer.model.options import RequestOptions
from nnsteer.program.direction import Directions
from nnsteer.program.names import Score, Side
from nnsteer.program.program import Program, add
from nnsteer.program.span import ALL, GENERATED, PROMPT, Last, Reading, Span, first_generated
from nnsteer.recipes import published
from nnsteer.study.choose import Dose, layer_bands
from nnsteer.study.run import Fit, fit_there
from nnsteer.texts.refusal import Requests, load_requests

__all__ = ["RequestOptions", "Score", "Side"]
# opener tokens to read the behaviour on, and tokens to add it to
WINDOWS: dict[str, Reading] = {"first 3": first_generated(3), "all": GENERATED, "last": Last()}
SPANS = {"all": ALL, "prompt": PROMPT}
STRENGTHS = (0.5, 0.75, 1.0, 1.5, 2.0)
DRAWS = (
    16  # random directions that the control's prompts take in turn: one alone can move refusal far
)
Config = Any
"""A refusal run's Config, or that of a recipe which goes on from one."""


@dataclass(frozen=True)
class Doses:
    """Ways to steer, each with its program."""

    programs: Mapping[Dose, Program]
    directions: Mapping[Dose, Directions]
    seed: int

    def controls(self, dose: Dose) -> tuple[Program, ...]:
        """Random directions of the dose's directions' lengths."""
        return tuple(
            add(
                fit.random_like(self.directions[dose], self.seed + i),
                dose.strength,
                SPANS[dose.span],
            )
            for i in range(DRAWS)
        )


@dataclass(frozen=True)
class Search:
    """Among what is chosen on the tune split, and how texts are read."""

    how: Fit
    windows: Mapping[str, tuple[str, Reading]]
    """By name: the direction's file, and the tokens of the opener that are read."""
    spans: Mapping[str, Span]
    bands: Sequence[tuple[int, ...]]
    strengths: Sequence[float]
    condition_layers: tuple[int, ...]
    known: tuple[float, Side] | None
    """The condition's threshold and side, where they are given."""
    seed: int

    def doses(self, behaviour: Mapping[str, Directions], sign: int = 1) -> Doses:
        """Every way to add the directions, which are by window; to take them away for sign -1."""
        strengths = [sign * abs(s) if sign < 0 else s for s in self.strengths]
        ways = [Dose(*way) for way in product(behaviour, self.spans, self.bands, strengths)]
        directions = {dose: behaviour[dose.window].at(*dose.layers) for dose in ways}
        programs = {d: add(directions[d], d.strength, SPANS[d.span]) for d in ways}
        return Doses(programs, directions, self.seed)


def requests(config: Config) -> Requests:
    """The prompts and openers."""
    sources = config.harmful, config.harmless, config.refusals, config.compliances
    return load_requests(*sources, config.seed)


def model(config: Config) -> tuple[ModelFiles, int]:
    """The model's files, and how many layers it has."""
    files = find_model(config.model, config.revision)
    return files, num_layers(files.config)


def search(config: Config, layers: int) -> Search:
    """Among what the run chooses; as published, the strength and the layers alone."""
    bands = [config.layers] if config.layers else layer_bands(layers)
    condition_layers = config.condition_layers or tuple(range(max(1, layers // 2)))
    check_layers([*condition_layers, *chain(*bands)], layers)
    windows: Mapping[str, Reading] = {"all": GENERATED} if config.as_published else WINDOWS
    return Search(
        how=published.directions if config.as_published else fit_there.directions,
        windows={name: (file_of(name), tokens) for name, tokens in windows.items()},
        spans={"all": ALL} if config.as_published else SPANS,
        bands=bands,
        strengths=STRENGTHS if config.strength is None else (config.strength,),
        condition_layers=condition_layers,
        known=None if config.threshold is None else (config.threshold, config.fires_when),
        seed=config.seed,
    )


def file_of(window: str) -> str:
    """What the behaviour direction of a window is called in the run folder."""
    return f"behaviour_{window.replace(' ', '_')}"


def refusal(config: Config, texts: Requests) -> AnswerMeasure:
    """What a refusal is."""
    if config.judged_by == "openers":
        return by_openers(texts.refusals)
    return replace(either(classifier(), by_keywords()), name="refusal")


def check(config: Config) -> None:
    """Refuses what no run can use."""
    counts = "pairs", "condition_pairs", "tune_prompts", "max_new_tokens", "batch_size"
    at_least_one(config, *counts)
    given = config.condition_layers
    if config.threshold is not None and (given is None or len(given) != 1):
        raise UserError(
            f"--threshold {config.threshold}: is for one layer; give it with --condition-layers"
        )
    if config.strength is not None and not isfinite(config.strength):
        raise UserError(
            f"--strength {config.strength}: must be a finite number of lengths of the direction, "
            "such as 0.5"
        )
    for method in (config.method, config.condition_method):
        fit.method_named(method)
