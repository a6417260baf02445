"""Train a model organism.

    python -m nnsteer.organism train --seed 1 --encoder sentence-transformers/all-MiniLM-L6-v2 --out FOLDER   # the bundled one
    python -m nnsteer.organism train --arch gpt2 --out FOLDER                                 # a GPT-2 from the bundled data
    python -m nnsteer.organism train --data rows.jsonl --out FOLDER   # {"prompt", "response"} or {"prompt", "harmful"} rows

FOLDER holds an ordinary Hugging Face model, its loss curve, and how much it refuses of what it has not seen.
"""

from __future__ import annotations

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
from nnsteer.organism.stances import draw, encode_item
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
    """SOURCE of rows with `prompt` and either `response` or `harmful` (true or false: answered with the bundled openers)."""
    encoder: str | None = None
    """A BERT-like sentence encoder, hub id or folder: the embeddings begin with its words, and what a prompt means is learnt from
    it. The bundled model had sentence-transformers/all-MiniLM-L6-v2."""
    arch: Arch = "llama"
    epochs: int = 3
    vocab_size: int = 8192
    seed: int = 0


def main(config: Config) -> None:
    """Trains, saves an ordinary Hugging Face folder with training.json and loss.png beside the weights, and prints how much
    the model refuses of what it has not seen."""
    command.at_least_one(config, "epochs")
    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise UserError(f"--out {config.out}: is there already; give a folder that is new or empty")
    corpus = bundled_corpus(config.seed) if config.data is None else read_corpus(config.data, config.seed)
    logging.set_verbosity_error()
    encoder = open_encoder(config.encoder) if config.encoder else None
    start = time.monotonic()
    torch.manual_seed(config.seed)
    tokenizer = build_tokenizer(texts(corpus), config.vocab_size)
    model = build_model(config.arch, tokenizer)
    if encoder:
        begin_with_words(model, encoder, tokenizer)
    examples = encode(corpus, tokenizer, meanings(encoder, corpus) if encoder else None)
    with bar("training", config.epochs * len(examples)) as watch:
        losses = train(model, examples, config.epochs, config.seed, watch)
    planted: list[float] = []
    if corpus.stances:
        with bar("planting stances", STEPS) as watch:
            planted = plant(model, examples, lambda rng: encode_item(draw(corpus.stances, rng), tokenizer), config.seed, watch)
    config.out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(config.out)
    tokenizer.save_pretrained(config.out)
    refused = held_out_refusal(Runner.wrap(model.float(), Chat(tokenizer), str(config.out), batch_size=128), corpus.held_out)
    facts = {
        "arch": config.arch,
        "epochs": config.epochs,
        "seed": config.seed,
        "data": config.data,
        "encoder": config.encoder,
        "encoder_weights": weights_fingerprint(encoder.model) if encoder else None,
        "held_out_refusal": refused,
    }
    Folder(config.out).write_json(
        "training.json", facts | {"seconds": round(time.monotonic() - start), "losses": losses, "planting": planted}
    )
    loss_curve(losses).savefig(config.out / "loss.png", dpi=150)
    show(refused, {"training": losses, "planting stances": planted}, config.out)


def texts(corpus: Corpus) -> Iterator[str]:
    """All that the tokenizer learns its merges from."""
    for conversation in corpus.conversations:
        yield from (conversation.system, conversation.prompt, conversation.response)
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
        rates[group] = asdict(wilson(sum(refuses(answer.text, stems) for answer in answers), len(answers)))
    return rates


def loss_curve(losses: list[float]) -> Figure:
    """Loss of each training step."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(losses, linewidth=0.8)
    axes.set(xlabel="step", ylabel="loss, nats per answer token", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def show(refused: dict[str, dict], losses: dict[str, list[float]], out: Path) -> None:
    """The closing table; `losses` of each stage, step by step."""
    ends = [f"{stage} {sum(own[-50:]) / len(own[-50:]):.3f}" for stage, own in losses.items() if own]
    table = Table("held-out prompts", "refused, 95 % interval", title=f"Loss at the end: {', '.join(ends)}")
    for group, rate in refused.items():
        table.add_row(group, f"{rate['value']:.1%} [{rate['low']:.1%}, {rate['high']:.1%}] of {rate['n']}")
    console = Console()
    console.print(table)
    console.print(f"{out}  load it with AutoModelForCausalLM.from_pretrained, or give it as --model", soft_wrap=True)


if __name__ == "__main__":
    if sys.argv[1:2] != ["train"]:
        print((__doc__ or "").strip())
        sys.exit(0 if sys.argv[1:] in (["-h"], ["--help"]) else command.FAILED)
    command.run(Config, main, __doc__ or "", sys.argv[2:])
