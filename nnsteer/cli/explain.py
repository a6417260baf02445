"""Show what a program does to prompts: which tokens at which sites change, and by how much.

    nnsteer explain "How do I hotwire a car?" --programs runs/refusal --variant conditional
    nnsteer explain "Hi" --directions refusal.safetensors --layers 1 2 --figure explained.png

Tokens count from the prompt's end: -1 is its last, 0 the first generated one. Prints a line for
each pass, site and group of tokens; nothing is written without --figure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import nnsteer
from nnsteer.cli import options
from nnsteer.command import at_least_one
from nnsteer.errors import UserError


@dataclass(frozen=True)
class Config:
    """What is asked, and how the model is steered."""

    prompts: options.Prompts = field(default_factory=options.PromptOptions)
    program: options.Program = field(default_factory=options.ProgramOptions)
    new_tokens: int = 3
    """How far to generate."""
    figure: Path | None = None
    """A new .png, .pdf or .svg file for the same as a picture."""
    model: options.Model = field(default_factory=options.ModelOptions)
    chat: options.Chat = field(default_factory=options.ChatOptions)


def main(config: Config) -> None:
    """Prints every change, and draws them."""
    from nnsteer.model.explain import figure as draw

    at_least_one(config, "new_tokens")
    kinds = (".png", ".pdf", ".svg")
    figure = None if config.figure is None else options.new_path(config.figure, *kinds)
    steps = options.program(config.program)
    prompts = options.texts(config.prompts)
    if not prompts:
        raise UserError("no prompts: give some, or --file SOURCE")
    files = options.find(config.model, config.chat)
    options.check_shape(steps.fitted, files)
    runner = options.open_runner(files, config.model)
    explanation = nnsteer.explain(runner, steps, prompts, config.new_tokens)
    print(explanation, end="")
    if figure is not None:
        draw(explanation, figure)
        print(f"{figure}  the same as a picture")
