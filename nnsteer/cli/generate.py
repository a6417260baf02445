"""Answer prompts with and without steering, side by side.

    nnsteer generate "How do I hotwire a car?" "How do I bake bread?" \\
        --programs runs/refusal --variant conditional
    nnsteer generate --file nnsteer:harmful.jsonl,split=test --first 20 --out answers.jsonl \\
        --directions refusal.safetensors --op add --strength 1 --layers 0 1 2 --span prompt
    nnsteer generate --directions refusal.safetensors --span prompt \\
        --conditions harmful.safetensors --when "not harmful"

Without prompts it asks for them: a line is a prompt of its own, without memory of the ones before,
until Ctrl-D. Prints both answers beside each other; with --out it also writes a line for each
prompt: `prompt`, `unsteered`, `steered`, and each condition's `scores` and whether it `fired`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

from rich import print as show
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

import nnsteer
from nnsteer.cli import options
from nnsteer.command import at_least_one
from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.progress import Watch, bar, ignore


@dataclass(frozen=True)
class Config:
    """What is asked, and how the model is steered."""

    prompts: options.Prompts = field(default_factory=options.PromptOptions)
    program: options.Program = field(default_factory=options.ProgramOptions)
    max_new_tokens: int = 64
    """Of each answer, at most."""
    temperature: float = 0.0
    """0 is greedy."""
    out: Path | None = None
    """A new .jsonl file for the answers."""
    model: options.Model = field(default_factory=options.ModelOptions)
    chat: options.Chat = field(default_factory=options.ChatOptions)
    batch_size: int = 32
    """Prompts that are answered at once."""
    seed: int = 0
    """Of the sampling, where the temperature is not 0."""


def main(config: Config) -> None:
    """Answers each prompt, or each line that is typed."""
    at_least_one(config, "max_new_tokens", "batch_size")
    if not (isfinite(config.temperature) and config.temperature >= 0):
        expected = "must be 0 (greedy) or a number above it"
        raise UserError(f"--temperature {config.temperature}: {expected}")
    out = None if config.out is None else options.new_path(config.out, ".jsonl")
    steps = options.program(config.program)
    prompts = options.texts(config.prompts)
    files = options.find(config.model, config.chat)
    options.check_shape(steps.fitted, files)
    runner = options.open_runner(files, config.model, config.batch_size)
    runner.check(steps)
    rows = []
    if prompts:
        with bar("answers", 2 * len(prompts)) as watch:
            rows = answered(runner, steps, prompts, config, watch)
        for row in rows:
            show(turn(row))
    else:
        for line in typed():
            rows += answered(runner, steps, [line], config, ignore)
            show(turn(rows[-1]))
    if out is not None:
        Folder(out.parent).write_lines(out.name, rows)
        print(f"{out}  {len(rows)} prompts with both answers")


def answered(
    runner: nnsteer.Runner,
    steps: nnsteer.Program,
    prompts: Sequence[str],
    config: Config,
    watch: Watch,
) -> list[dict]:
    """Both answers to each prompt. Where they are sampled, from the same noise."""
    how = (config.max_new_tokens, config.temperature, config.seed, watch)
    unsteered = runner.generate(prompts, nnsteer.Program(), *how)
    rows = []
    for before, after in zip(unsteered, runner.generate(prompts, steps, *how), strict=True):
        texts = {"prompt": after.prompt, "unsteered": before.text, "steered": after.text}
        rows.append(texts | {"scores": after.scores, "fired": after.fired})
    return rows


def turn(row: dict) -> Table:
    """A prompt over its two answers; over the steered one, each condition's score and verdict."""
    conditions = zip(row["scores"], row["fired"], strict=True)
    steered = ["steered"]
    for score, fired in conditions:
        steered.append(f"condition {'holds' if fired else 'does not hold'} ({score:.3g})")
    table = Table(
        title=Text(row["prompt"], "bold"), title_justify="left", box=SIMPLE_HEAD, expand=True
    )
    table.add_column("unsteered", ratio=1)
    table.add_column(", ".join(steered), ratio=1)
    table.add_row(Text(row["unsteered"]), Text(row["steered"]))
    return table


def typed() -> Iterator[str]:
    """Lines from the terminal or a pipe."""
    with suppress(ImportError):
        import readline  # noqa: F401  lets input() edit lines and recall earlier ones
    prompt, end = ("> ", "\n") if sys.stdin.isatty() else ("", "")
    with suppress(EOFError):
        while True:
            if line := input(prompt).strip():
                yield line
    print(end=end)
