"""Put a program in a model's weights: a folder that transformers loads, steered without nnsteer.

    nnsteer bake --directions refusal.safetensors --layers 1 --out steered
    nnsteer bake --directions anger.safetensors --layers 1 2 --strength 0.5 --model mine --out angry

Weights treat all tokens alike and decide nothing: a condition, or a span other than all tokens, is
refused, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import nnsteer
from nnsteer.cli import options
from nnsteer.folder import Folder


@dataclass(frozen=True)
class Config:
    """What to put in which weights."""

    program: options.Program = field(default_factory=options.ProgramOptions)
    out: Path = Path("steered")
    """A new folder for the model and its tokenizer."""
    untie: bool = False
    """Gives the model an unembedding of its own where an op edits a tied embedding."""
    model: options.Model = field(default_factory=options.ModelOptions)


def main(config: Config) -> None:
    """Bakes and saves, the whole folder or none of it."""
    from nnsteer.model.bake import affine_edit, moved_to_a_map
    from nnsteer.model.load import load_model

    out = options.new_path(config.out)
    steps = options.program(config.program)
    for step in steps.steps:  # what no weights can hold is refused before any are loaded
        moved_to_a_map(step, affine_edit(step))
    files = nnsteer.find_model(config.model.model, config.model.revision, templated=False)
    options.check_shape(steps.fitted, files)
    model = load_model(files, config.model.dtype, config.model.device_map)
    baked = nnsteer.bake(model, steps, config.untie)
    with TemporaryDirectory(prefix=".nnsteer", dir=out.parent) as beside:
        made = Path(beside) / out.name
        baked.save_pretrained(made)
        files.chat.tokenizer.save_pretrained(made)
        facts = {"model": files.name, "revision": files.revision}
        facts |= {"program": list(map(str, steps.steps))}
        Folder(made).write_json("nnsteer.json", facts)
        made.replace(out)
    print(f"{out}  load it with AutoModelForCausalLM.from_pretrained, or give it as --model")
