"""What a run's options stand for: its folder, two copies of its model, and what it expects."""

from __future__ import annotations

from math import isfinite
from typing import Any

from transformers import PreTrainedModel

from nnsteer.command import at_least_one
from nnsteer.errors import UserError
from nnsteer.folder import check_folder
from nnsteer.model.layout import check_layers, num_layers
from nnsteer.model.load import find_model, load_model
from nnsteer.model.runner import Runner
from nnsteer.program.names import Dtype
from nnsteer.study import Run, start
from nnsteer.study.run import settings_of
from nnsteer.texts.contrast import of_prompts

__all__ = ["Dtype", "checks", "opened"]
Config = Any
"""The recipe's Config."""


def opened(config: Config) -> tuple[Run, PreTrainedModel]:
    """The run, and a copy of its model that nnsight never touches. Raises UserError, before any
    weights are loaded, for what no run can use."""
    at_least_one(config, "max_new_tokens", "repeats")
    c, prompt, words = config.coefficient, config.prompt, config.words
    if not isfinite(c) or c == 0:
        raise UserError(f"--coefficient {c}: must be a finite number other than 0, such as 1.5")
    files = find_model(config.model, config.revision, templated=False)
    check_layers([config.layer], num_layers(files.config))
    tokens, first, second = map(files.chat.prompt_ids, (prompt, *words))
    if not (tokens and first and second) or first == second:
        raise UserError(
            f"--prompt {prompt!r} --words {words}: give a prompt and two different words"
        )
    check_folder(config.out, settings_of(config), "implementations")
    runner, model = Runner.open(files, config.dtype), load_model(files, config.dtype).eval()
    data = {"words": of_prompts(*([word] for word in words)).fingerprint()}
    return start("implementations", config, files, data, opened=runner), model


def checks(config: Config, sites: list[dict]) -> list[dict[str, Any]]:
    """Each value that the options expect, beside the one found."""
    lengths = config.expected_lengths or (None, None)
    texts = (config.expected_texts, config.expected_bias_texts)
    table = []
    for site, length, site_texts in zip(sites, lengths, texts, strict=False):
        found = {"length": f"{site['length']:.2f}"} | site["texts"]
        expected = {} if length is None else {"length": f"{length:.2f}"}
        expected |= dict(zip(site["texts"], site_texts or (), strict=False))
        for what, value in expected.items():
            values = {"expected": value, "found": found[what], "equal": value == found[what]}
            table.append({"site": site["site"], "what": what, **values})
    return table
