"""Fit directions: what tells two sides of texts apart in a model's states, a vector a layer.

    nnsteer fit --positive nnsteer:harmful.jsonl --negative nnsteer:harmless.jsonl \\
        --method lda --out harm.safetensors
    nnsteer fit --prompts nnsteer:harmless.jsonl --positive nnsteer:refusals.jsonl \\
        --negative nnsteer:compliances.jsonl --read last --out refusal.safetensors
    nnsteer fit --positive mine.csv,column=angry --negative mine.csv,column=calm \\
        --model my-folder --out anger.safetensors

Then `nnsteer generate "How are you?" --directions anger.safetensors --layers 1 --model my-folder`.

The sides are prompts, the i-th of each a pair; or, with --prompts, openers of answers to those
prompts, drawn by the seed. Rows of the fit split are used.

Writes one file. A .safetensors holds a vector a layer and where it came from: site, tokens, method,
texts and model; other verbs take it as --directions, Python as `nnsteer.load_directions`. A .svec
is for CAST's library; a .gguf for llama.cpp and repeng, without block 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich import print as show
from rich.box import SIMPLE
from rich.table import Table

import nnsteer
from nnsteer.cli import options
from nnsteer.command import at_least_one
from nnsteer.errors import UserError
from nnsteer.program.names import READINGS, Method, ReadingName
from nnsteer.program.site import Site, Stream
from nnsteer.progress import bar
from nnsteer.texts.refusal import load_contrast

if TYPE_CHECKING:
    from nnsteer.model.load import ModelFiles

PREVIEWED = 2  # texts a side


@dataclass(frozen=True)
class Config:
    """What to fit, on which model."""

    positive: str
    """SOURCE of the side to point to."""
    negative: str
    """SOURCE of the other side."""
    prompts: str | None = None
    """SOURCE of prompts to which the sides are openers of answers."""
    method: Method = "mean_difference"
    """The difference of the means; CAST's principal directions of pairs (pca_pairwise), of all
    states (pca_center) or of differences (pca_diff); or a probe: linear discriminant or logistic
    regression; or one from outside, by the name of its entry point or as module:function."""
    read: ReadingName = "prompt"
    """The tokens whose mean state is read: the prompt's, its last; the opener's (response), its
    first three; the text's last."""
    layers: tuple[int, ...] | None = None
    """From 0; all when not given."""
    stream: Stream = "block_out"
    """What enters or leaves a block, or what its attention or MLP adds."""
    pairs: int = 1000
    """At most so many."""
    out: Path = Path("directions.safetensors")
    """A new file: .safetensors, .svec or .gguf."""
    preview: bool = False
    """Shows which tokens of the first texts are read, in [brackets]."""
    model: options.Model = field(default_factory=options.ModelOptions)
    chat: options.Chat = field(default_factory=options.ChatOptions)
    batch_size: int = 32
    """Texts that are read at once."""
    seed: int = 0
    """Divides rows that bring no split, and draws openers."""


def main(config: Config) -> None:
    """Reads both sides, fits, writes the file and prints how long the directions are."""
    from nnsteer.model.reading import preview, tokens_to_read

    at_least_one(config, "pairs", "batch_size")
    nnsteer.fit.method_named(config.method)  # or refused, before a model is loaded
    out = options.new_path(config.out, ".safetensors", ".svec", ".gguf")
    sources = (config.positive, config.negative, config.prompts)
    contrast = load_contrast(*sources, config.pairs, config.seed)
    files = options.find(config.model, config.chat)
    sites, reading = sites_of(config, files), READINGS[config.read]
    for side in (contrast.positive, contrast.negative):
        tokens_to_read(files.chat.pad(files.chat.rows(side)), reading)
        if config.preview:
            print(preview(files.chat, side[:PREVIEWED], reading))
    runner = options.open_runner(files, config.model, config.batch_size)
    positives, negatives = len(contrast.positive), len(contrast.negative)
    with bar("reading", positives + negatives) as watch:
        directions = runner.fit(contrast, sites, reading, config.method, watch)
    save(out, directions, files)
    show(lengths(directions))
    print(f"{out}  {config.method} over {reading} tokens of {positives} and {negatives} texts")


def sites_of(config: Config, files: ModelFiles) -> list[Site]:
    """Where to read. Raises UserError for what the model or the kind of file doesn't have."""
    from nnsteer.model.layout import check_layers, num_layers
    from nnsteer.program.exchange import import_gguf

    kind, count = config.out.suffix, num_layers(files.config)
    if kind != ".safetensors" and config.stream != "block_out":
        alone = f"a {kind} holds directions at block outputs alone; write a .safetensors"
        raise UserError(f"--stream {config.stream}: {alone}")
    layers = config.layers or tuple(range(1 if kind == ".gguf" else 0, count))
    if kind == ".gguf":
        import_gguf()
        if 0 in layers:
            why = "a .gguf holds none for block 0, as llama.cpp refuses it"
            raise UserError(f"--layers 0: {why}; leave it out")
    check_layers(layers, count)
    return [Site(layer, config.stream) for layer in layers]


def save(out: Path, directions: nnsteer.Directions, files: ModelFiles) -> None:
    """Writes the kind of file that the name asks for."""
    if out.suffix == ".safetensors":
        nnsteer.save_directions(out, directions.values())
    else:
        export = nnsteer.save_svec if out.suffix == ".svec" else nnsteer.save_gguf
        export(out, directions, files.config.model_type)


def lengths(directions: nnsteer.Directions) -> Table:
    """Each direction's length beside the norm of the states it was read from."""
    table = Table("site", "length", "norm of the states", "length / norm", box=SIMPLE)
    for site, direction in directions.items():
        length, norm = direction.vector.norm().item(), direction.norm or float("nan")
        table.add_row(str(site), f"{length:.3g}", f"{norm:.3g}", f"{length / norm:.2f}")
    return table
