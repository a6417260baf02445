"""What an ACE run's options stand for: its prompts, its model, and its measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf, isfinite
from typing import Any

from nnsteer.command import at_least_one
from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.measure import named
from nnsteer.measure.divergence import broken
from nnsteer.measure.kinds import AnswerMeasure, ReadingMeasure
from nnsteer.measure.standardisation import check_alphas
from nnsteer.model.layout import check_layers, num_layers
from nnsteer.model.load import ModelFiles, find_model
from nnsteer.model.options import RequestOptions
from nnsteer.texts.refusal import Requests, load_requests
from nnsteer.texts.sets import PromptSet

__all__ = ["RequestOptions"]
COUNTS = "fit_prompts", "samples", "tune_prompts", "test_prompts", "max_new_tokens", "batch_size"
Config = Any
"""An ACE run's Config."""


def requests(config: Config) -> Requests:
    """The prompts and openers."""
    sources = config.harmful, config.harmless, config.refusals, config.compliances
    return load_requests(*sources, config.seed)


def model(config: Config) -> tuple[ModelFiles, tuple[int, ...]]:
    """The model's files, and the layers among which one is chosen."""
    files = find_model(config.model, config.revision)
    layers = num_layers(files.config)
    candidates = config.layer if isinstance(config.layer, tuple) else tuple(range(layers))
    check_layers(candidates, layers)
    return files, candidates


def measures(config: Config, texts: Requests) -> tuple[AnswerMeasure, ReadingMeasure]:
    """What a refusal is, and what is broken. Raises UserError for a measure of something else."""
    (judge,) = named.measures([config.measure], texts.refusals, config.out.expanduser())
    if not isinstance(judge, AnswerMeasure) or not judge.binary:
        raise UserError(
            f"--measure {config.measure}: must judge answers with yes or no, "
            "as refusal, classifier or a judge does"
        )
    return replace(judge, name="refusal"), broken(config.max_drift)


def keep_order(folder: Folder, sets: Sequence[PromptSet]) -> None:
    """Keeps each set's prompts in prompts.json, in their order, on which bootstraps depend."""
    order = {side.name: [prompt.text for prompt in side.prompts] for side in sets}
    folder.write_json("prompts.json", order)


def check(config: Config) -> None:
    """Refuses what no run can use."""
    at_least_one(config, *COUNTS)
    for name in ("methods", "where", "layer", "alphas"):
        given = getattr(config, name)
        if not given or (not isinstance(given, str) and len({*given}) < len(given)):
            said = " ".join(map(str, given)) or "with nothing"
            raise UserError(f"--{name} {said}: give at least one, and each once")
    if not all(map(isfinite, config.alphas)):
        said = " ".join(map(str, config.alphas))
        raise UserError(f"--alphas {said}: must be finite numbers, such as -0.5 0 0.5 1")
    check_alphas(config.alphas)
    if not 0 <= config.temperature < inf:
        raise UserError(f"--temperature {config.temperature}: must be 0 (greedy) or above")
    if config.temperature == 0 and config.samples > 1:
        raise UserError(
            f"--samples {config.samples} --temperature 0: greedy answers are all the same; "
            "give a --temperature"
        )
    if config.remote not in (None, "local") and {"scrubbed", "scrubbed-half"} & {*config.where}:
        raise UserError(
            f"--where scrubbed --remote {config.remote}: scrubbing reads edited streams, "
            "which needs the weights here"
        )
    if config.layer == "arditi" and config.contrast not in ("refused", "prompts"):
        raise UserError(
            f"--layer arditi --contrast {config.contrast}: it reads prompts, not answers; "
            "give --contrast refused"
        )
