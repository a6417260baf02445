"""What steering costs: tokens per second of batched greedy generation on a random 85 M-parameter Llama (12 layers, width 768).

    python -m benchmarks.overhead

Each round runs every way of generating once, in turn, so that the machine's moods fall on all of them; a ratio is a way's
tokens per second over plain transformers' of the same round. Prints a table, then one line of JSON.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
import tyro
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from nnsteer import Condition, Program, Runner, Site, add, block_outs, fit, of_prompts
from nnsteer.attach import attach
from nnsteer.bake import bake
from nnsteer.contrast import Text
from nnsteer.data import bundled
from nnsteer.load import find_model

NAMES = {
    "plain": "plain transformers",
    "attach": "attach, 12-layer add",
    "runner": "Runner, unsteered",
    "runner_add": "Runner, 12-layer add",
    "runner_condition": "Runner, 12-layer add under a condition",
    "baked": "baked, 12-layer add",
}


@dataclass(frozen=True)
class Config:
    rounds: int = 9
    rows: int = 16
    new_tokens: int = 32
    threads: int = 2


def main(config: Config) -> None:
    """Builds the model, warms up, measures."""
    logging.set_verbosity_error()
    torch.set_num_threads(config.threads)
    torch.manual_seed(0)
    chat = find_model("nnsteer:organism").chat
    tokenizer = chat.tokenizer
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=None, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    untouched = copy.deepcopy(model)  # nnsight patches the forwards of what it wraps
    prompts = [row["prompt"] for row in bundled("harmful.jsonl") if row["split"] == "tune"][: config.rows]
    ways = build(Runner.wrap(model, chat, "random-85m", batch_size=config.rows), untouched, prompts, config.new_tokens)
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(config.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    show(seconds, config)


def build(runner: Runner, model: LlamaForCausalLM, prompts: list[str], new_tokens: int) -> dict[str, Callable[[], object]]:
    """The ways of generating, by name; `model` has the runner's weights."""
    batch = runner.chat.pad(runner.chat.rows([Text(prompt) for prompt in prompts]))
    sites = block_outs(range(12))
    directions = fit.mean_difference(runner.record(of_prompts(prompts[:4], prompts[4:8]), sites))
    everywhere = add(directions, 0.1)
    # every row is asked at layer 1, and about half of them are steered
    free = Condition(directions[Site(1)], 0.0)
    when = Condition(directions[Site(1)], runner.scores(prompts, [free])[0].median().item())
    late = add({site: directions[site] for site in sites[1:]}, 0.1)
    baked = bake(model, everywhere)

    def plain(model: LlamaForCausalLM = model) -> object:
        settings = {"max_new_tokens": new_tokens, "do_sample": False}
        return model.generate(input_ids=batch.ids, attention_mask=batch.mask, **settings)

    def attached() -> object:
        with attach(model, everywhere):
            return plain()

    return {
        "plain": plain,
        "attach": attached,
        "runner": lambda: runner.generate(prompts, Program(), new_tokens),
        "runner_add": lambda: runner.generate(prompts, everywhere, new_tokens),
        "runner_condition": lambda: runner.generate(prompts, late.when(when), new_tokens),
        "baked": lambda: plain(baked),
    }


def show(seconds: dict[str, list[float]], config: Config) -> None:
    """The table and the line of JSON."""
    tokens = config.rows * config.new_tokens
    table = Table(title=f"{config.rows} rows, {config.new_tokens} new tokens, {config.rounds} rounds, {config.threads} threads")
    for column in ("", "tokens/s, median", "ratio to plain, median", "least to most"):
        table.add_column(column)
    ratios = {}
    for name, own in seconds.items():
        paired = sorted(base / mine for base, mine in zip(seconds["plain"], own, strict=True))
        ratios[name] = round(median(paired), 3)
        speed = f"{tokens / median(own):.1f}"
        table.add_row(NAMES[name], speed, f"{ratios[name]:.3f}", f"{paired[0]:.3f} to {paired[-1]:.3f}")
    Console().print(table)
    print(json.dumps({"ratios": {name: value for name, value in ratios.items() if name != "plain"}}))


if __name__ == "__main__":
    main(tyro.cli(Config))
