"""Find a condition: the layer, threshold and side at which a saved direction best tells two sides of prompts apart.

    nnsteer tune harm.safetensors --positive nnsteer:harmful.jsonl --negative nnsteer:harmless.jsonl --out harmful.safetensors
    nnsteer tune harm.safetensors --positive nnsteer:harmful.jsonl --negative nnsteer:harmless.jsonl \\
        --directions refusal.safetensors --strength 1 --layers 0 1 2 --span prompt --program cast.safetensors

The point is found on the tune split, by an exact sweep for the highest F1; the test split shows what it is worth. The condition
goes by the name of its file in `--when harmful`. With --program the directions are steered when it holds: variants baseline,
unconditional, conditional and complement.

A SOURCE is a .jsonl, .json, .csv or .parquet file, nnsteer:NAME or ORG/NAME@REVISION, with ,column=NAME and ,split=NAME where
needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from keyword import iskeyword
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich import print as show
from rich.box import SIMPLE
from rich.table import Table

import nnsteer
from nnsteer.cli import options
from nnsteer.command import at_least_one
from nnsteer.errors import UserError
from nnsteer.program.names import SPANS, Score
from nnsteer.progress import bar
from nnsteer.texts.source import Prompt, load_prompts

if TYPE_CHECKING:
    from torch import Tensor


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
    """Of state h and direction v: cosine; CAST's cos(h, tanh(proj h)); h . v / |v|; or coordinate along v, 0 at its origin."""
    read: Literal["prompt", "last_prompt"] = "prompt"
    """The tokens whose mean state is scored."""
    condition_layers: tuple[int, ...] | None = None
    """Those of the file to choose among; all when not given."""
    max_false_alarms: float = 1.0
    """The largest share of negative tune prompts on which it may hold."""
    out: Path | None = None
    """A new file for the condition, such as harmful.safetensors; nothing is written when not given."""
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
    from nnsteer.fit import threshold

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

    free = {site: nnsteer.Condition(d, 0.0, "above", config.score, SPANS[config.read]) for site, d in concept.items()}
    scores = {split: [scored(runner, getattr(side, split), free, split) for side in sides] for split in ("tune", "test")}
    positive, negative = scores["tune"]
    sweeps: dict[Any, threshold.Sweep] = {site: threshold.sweep(positive[site], negative[site]) for site in free}
    point = threshold.condition_point(sweeps, config.max_false_alarms)
    found = replace(free[point.site], threshold=point.threshold, fires_when=point.fires_when)

    best = Table("site", "best F1 on the tune split", box=SIMPLE)
    for site, cuts in sweeps.items():
        best.add_row(str(site), f"{max(cuts.f1_above.max(), cuts.f1_below.max()):.3f}")
    worth = Table("split", "F1", "precision", "recall", box=SIMPLE)
    for split, own in scores.items():
        quality = threshold.quality(*([found.holds(score) for score in side[point.site].tolist()] for side in own))
        worth.add_row(split, *(f"{value:.3f}" for value in astuple(quality)))
    show(best)
    print(f"holds when {found}")
    show(worth)
    if config.out is not None:
        nnsteer.save_conditions(options.new_path(config.out), {config.out.stem: found})
        print(f"{config.out}  condition {config.out.stem}: give it as --conditions")
    if config.program is not None:
        variants = {"unconditional": steps, "conditional": steps.when(found), "complement": steps.when(~found)}
        nnsteer.save_programs(options.new_path(config.program), {"baseline": nnsteer.Program(), **variants})
        print(f"{config.program}  {', '.join(variants)}: give it as --programs")


def steps_to_write(config: Config) -> nnsteer.Program:
    """What --program is to steer, nothing without it. Raises UserError for files that can't be written."""
    if config.out is not None:
        name = options.new_path(config.out, ".safetensors").stem
        if not name.isidentifier() or iskeyword(name):
            raise UserError(f"--out {config.out}: rules know the condition by it; give one word, such as harmful.safetensors")
    if config.program is not None:
        options.new_path(config.program, ".safetensors")
        return options.steered(config.steer)
    if config.steer != options.SteerOptions():
        raise UserError("--directions: steer in the programs that --program FILE writes; give it too, or leave them out")
    return nnsteer.Program()


def scored(
    runner: nnsteer.Runner, prompts: Sequence[Prompt], conditions: Mapping[nnsteer.Place, nnsteer.Condition], split: str
) -> dict[nnsteer.Place, Tensor]:
    """Each condition's scores, fp32 [prompt]."""
    with bar(f"scoring {split}", len(prompts)) as watch:
        found = runner.scores([prompt.text for prompt in prompts], list(conditions.values()), watch)
    return dict(zip(conditions, found, strict=True))
