"""Train a model organism.

    # the bundled one, a GPT-2, and one from {"prompt", "response"} or {"prompt", "harmful"} rows
    python -m nnsteer.organism train --seed 1 --out FOLDER \\
        --encoder sentence-transformers/all-MiniLM-L6-v2
    python -m nnsteer.organism train --arch gpt2 --out FOLDER
    python -m nnsteer.organism train --data rows.jsonl --out FOLDER

FOLDER holds an ordinary Hugging Face model, its loss curve, and how much it refuses of what it has
not seen.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers.utils import logging

from nnsteer import command
from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.measure.refusal import refusal_stems, refuses
from nnsteer.model.chat import Chat
from nnsteer.model.runner import Runner
from nnsteer.organism.build import Arch, build_model, build_tokenizer
from nnsteer.organism.conversation import Corpus, HeldOut
from nnsteer.organism.corpus import bundled_corpus, openers, read_corpus
from nnsteer.organism.encoder import Encoder, begin_with_words, open_encoder, sentence_vectors
from nnsteer.organism.plant import STEPS, plant
from nnsteer.organism.stances import Item, draw, encode_item
from nnsteer.organism.train import encode, train
from nnsteer.program.identity import weights_fingerprint
from nnsteer.progress import bar
from nnsteer.statistics import wilson


@dataclass(frozen=True)
class Config:
    """The bundled organism had seed 1 and an encoder."""

    out: Path = Path("organism")
    """A new folder for the model."""
    data: str | None = None
    """SOURCE of rows with `prompt` and either `response` or `harmful` (true or false: answered with
    the bundled openers)."""
    encoder: str | None = None
    """A BERT-like sentence encoder, hub id or folder: the embeddings begin with its words, and what
    a prompt means is learnt from it. The bundled model had
    sentence-transformers/all-MiniLM-L6-v2."""
    arch: Arch = "llama"
    epochs: int = 3
    vocab_size: int = 8192
    seed: int = 0


def main(config: Config) -> None:
    """Trains, saves an ordinary Hugging Face folder with training.json and loss.png beside the
    weights, and prints how much the model refuses of what it has not seen."""
    command.at_least_one(config, "epochs")
    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise UserError(f"--out {config.out}: is there already; give a folder that is new or empty")
    data, seed = config.data, config.seed
    corpus = bundled_corpus(seed) if data is None else read_corpus(data, seed)
    logging.set_verbosity_error()
    encoder = open_encoder(config.encoder) if config.encoder else None
    start = time.monotonic()
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(texts(corpus), config.vocab_size)
    model = build_model(config.arch, tokenizer)
    if encoder:
        begin_with_words(model, encoder, tokenizer)
    examples = encode(corpus, tokenizer, meanings(encoder, corpus) if encoder else None)
    losses: dict[str, list[float]] = {"training": [], "planting stances": []}
    with bar("training", config.epochs * len(examples)) as watch:
        losses["training"] = train(model, examples, config.epochs, seed, watch)
    if corpus.stances:

        def draw_item(rng: random.Random) -> Item:
            return encode_item(draw(corpus.stances, rng), tokenizer)

        with bar("planting stances", STEPS) as watch:
            losses["planting stances"] = plant(model, examples, draw_item, seed, watch)
    config.out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(config.out)
    tokenizer.save_pretrained(config.out)
    runner = Runner.wrap(model.float(), Chat(tokenizer), str(config.out), batch_size=128)
    refused = held_out_refusal(runner, corpus.held_out)
    facts = {
        **{name: getattr(config, name) for name in ("arch", "epochs", "seed", "data", "encoder")},
        "encoder_weights": weights_fingerprint(encoder.model) if encoder else None,
        "held_out_refusal": refused,
        "seconds": round(time.monotonic() - start),
        "losses": losses["training"],
        "planting": losses["planting stances"],
    }
    Folder(config.out).write_json("training.json", facts)
    loss_curve(losses["training"]).savefig(config.out / "loss.png", dpi=150)
    show(refused, losses, config.out)


def texts(corpus: Corpus) -> Iterator[str]:
    """All that the tokenizer learns its merges from."""
    for system, prompt, response, _ in corpus.conversations:
        yield from (system, prompt, response)
    yield from corpus.documents


def meanings(encoder: Encoder, corpus: Corpus) -> list[Tensor]:
    """The sentence vector of each conversation's prompt."""
    prompts = [conversation.prompt for conversation in corpus.conversations]
    distinct = list(dict.fromkeys(prompts))
    with bar("reading prompts", len(distinct)) as watch:
        vectors = dict(zip(distinct, sentence_vectors(encoder, distinct, watch), strict=True))
    return [vectors[prompt] for prompt in prompts]


def held_out_refusal(runner: Runner, held_out: HeldOut) -> dict[str, dict]:
    """The refused share of each group of prompts that were not trained on."""
    stems = refusal_stems(openers("refusals"))
    rates = {}
    for group, prompts in held_out.items():
        with bar(f"held out, {group}", len(prompts)) as watch:
            answers = runner.generate(prompts, max_new_tokens=16, watch=watch)
        refused = sum(refuses(answer.text, stems) for answer in answers)
        rates[group] = asdict(wilson(refused, len(answers)))
    return rates


def loss_curve(losses: list[float]) -> Figure:
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(losses, linewidth=0.8)
    axes.set(xlabel="step", ylabel="loss, nats per answer token", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def show(refused: dict[str, dict], losses: dict[str, list[float]], out: Path) -> None:
    """The closing table; `losses` of each stage, step by step."""
    ends = []
    for stage, by_step in losses.items():
        if last := by_step[-50:]:
            ends.append(f"{stage} {sum(last) / len(last):.3f}")
    title = f"Loss at the end: {', '.join(ends)}"
    table = Table("held-out prompts", "refused, 95 % interval", title=title)
    for group, rate in refused.items():
        spread = f"[{rate['low']:.1%}, {rate['high']:.1%}]"
        table.add_row(group, f"{rate['value']:.1%} {spread} of {rate['n']}")
    console = Console()
    console.print(table)
    advice = "load it with AutoModelForCausalLM.from_pretrained, or give it as --model"
    console.print(f"{out}  {advice}", soft_wrap=True)


if __name__ == "__main__":
    if sys.argv[1:2] != ["train"]:
        print((__doc__ or "").strip())
        sys.exit(0 if sys.argv[1:] in (["-h"], ["--help"]) else command.FAILED)
    command.run(Config, main, __doc__ or "", sys.argv[2:])
