"""Find a condition: the layer, threshold and side at which a saved direction best tells two sides
of prompts apart.

    nnsteer tune harm.safetensors --out harmful.safetensors \\
        --positive nnsteer:harmful.jsonl --negative nnsteer:harmless.jsonl
    nnsteer tune harm.safetensors --program cast.safetensors \\
        --positive nnsteer:harmful.jsonl --negative nnsteer:harmless.jsonl \\
        --directions refusal.safetensors --strength 1 --layers 0 1 2 --span prompt

The point is found on the tune split, by an exact sweep for the highest F1; the test split shows
what it is worth. The condition goes by the name of its file in `--when harmful`. With --program the
directions are steered when it holds: variants baseline, unconditional, conditional and complement.

A SOURCE is a .jsonl, .json, .csv or .parquet file, nnsteer:NAME or ORG/NAME@REVISION, with
,column=NAME and ,split=NAME where needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from keyword import iskeyword
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich import print as show
from rich.box import SIMPLE
from rich.table import Table

import nnsteer
from nnsteer.cli import options
from nnsteer.command import at_least_one
from nnsteer.errors import UserError
from nnsteer.program.names import SPANS, Score
from nnsteer.texts.source import load_prompts


@dataclass(frozen=True)
class Config:
    """The direction, the prompts, and what to write."""

    concept: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIRECTIONS")]
    """The file that `nnsteer fit` wrote, whose directions are scored."""
    positive: str
    """SOURCE of prompts on which the condition is to hold."""
    negative: str
    """SOURCE of prompts on which it is not."""
    score: Score = "cosine"
    """Of state h and direction v: cosine; CAST's cos(h, tanh(proj h)); h . v / |v|; or coordinate
    along v, 0 at its origin."""
    read: Literal["prompt", "last_prompt"] = "prompt"
    """The tokens whose mean state is scored."""
    condition_layers: tuple[int, ...] | None = None
    """Those of the file to choose among; all when not given."""
    max_false_alarms: float = 1.0
    """The largest share of negative tune prompts on which it may hold."""
    out: Path | None = None
    """A new file for the condition, such as harmful.safetensors; nothing is written when not
    given."""
    program: Path | None = None
    """A new file for programs with the condition, which needs --directions."""
    steer: options.Steer = field(default_factory=options.SteerOptions)
    model: options.Model = field(default_factory=options.ModelOptions)
    chat: options.Chat = field(default_factory=options.ChatOptions)
    batch_size: int = 32
    """Prompts that are read at once."""
    seed: int = 0
    """Divides rows that bring no split."""


def main(config: Config) -> None:
    """Scores, sweeps, prints and writes."""
    from nnsteer.study.run import search

    at_least_one(config, "batch_size")
    if not 0 <= config.max_false_alarms <= 1:
        raise UserError(f"--max-false-alarms {config.max_false_alarms}: give a share from 0 to 1")
    steps = steps_to_write(config)
    concept = options.at_layers(config.concept, config.condition_layers)
    sides = [load_prompts(source, config.seed) for source in (config.positive, config.negative)]
    files = options.find(config.model, config.chat)
    options.check_shape([*concept.values(), *steps.fitted], files)
    runner = options.open_runner(files, config.model, config.batch_size)
    runner.check(steps)

    free = {
        site: nnsteer.Condition(d, 0.0, "above", config.score, SPANS[config.read])
        for site, d in concept.items()
    }
    both = {}
    for split in ("tune", "test"):
        positive, negative = ([p.text for p in side.of(split)] for side in sides)
        both[split] = positive, negative
    facts = search(runner, free, both, config.max_false_alarms)
    site = nnsteer.Site(**facts["site"])
    cut = {"threshold": facts["threshold"], "fires_when": facts["fires_when"]}
    found = replace(free[site], **cut)

    best = Table("site", "best F1 on the tune split", box=SIMPLE)
    for name, curve in facts["curves"].items():
        best.add_row(name, f"{max(*curve['f1_above'], *curve['f1_below']):.3f}")
    worth = Table("split", "F1", "precision", "recall", box=SIMPLE)
    for split, quality in facts["quality"].items():
        worth.add_row(split, *(f"{value:.3f}" for value in quality.values()))
    show(best)
    print(f"holds when {found}")
    show(worth)
    if config.out is not None:
        nnsteer.save_conditions(options.new_path(config.out), {config.out.stem: found})
        print(f"{config.out}  condition {config.out.stem}: give it as --conditions")
    if config.program is not None:
        variants = {
            "unconditional": steps,
            "conditional": steps.when(found),
            "complement": steps.when(~found),
        }
        nnsteer.save_programs(
            options.new_path(config.program), {"baseline": nnsteer.Program(), **variants}
        )
        print(f"{config.program}  {', '.join(variants)}: give it as --programs")


def steps_to_write(config: Config) -> nnsteer.Program:
    """What --program is to steer, nothing without it. Raises UserError for files that can't be
    written."""
    if config.out is not None:
        name = options.new_path(config.out, ".safetensors").stem
        if not name.isidentifier() or iskeyword(name):
            raise UserError(
                f"--out {config.out}: rules know the condition by it; "
                "give one word, such as harmful.safetensors"
            )
    if config.program is not None:
        options.new_path(config.program, ".safetensors")
        return options.steered(config.steer)
    if config.steer != options.SteerOptions():
        raise UserError(
            "--directions: steer in the programs that --program FILE writes; "
            "give it too, or leave them out"
        )
    return nnsteer.Program()
