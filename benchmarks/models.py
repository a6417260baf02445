"""The models that are measured, and the sizes of the works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from nnsteer import Runner, Site, block_outs, find_model
from nnsteer.model.load import load_model
from nnsteer.texts.bundled import bundled, organism

MODELS = ("organism", "llama-85m")


@dataclass(frozen=True)
class Settings:
    """How much of each work, as the tables have it."""

    models: tuple[str, ...] = MODELS
    threads: int = 2
    rounds: int = 5
    batch_size: int = 64
    pairs: int = 512
    mixed_pairs: int = 128
    """Of long and short prompts together."""
    searched: int = 1000
    """Prompts a side of the condition search."""
    asked: tuple[int, ...] = (32, 256)
    """Prompts of conditional generation."""
    new_tokens: int = 32
    strengths: int = 16
    """Of the sweep, at each of four layers."""
    sweep_prompts: int = 16
    prompts_read: tuple[int, ...] = (512, 1024, 2048, 4096, 8192)
    """For peak memory."""


@dataclass(frozen=True)
class Opened:
    """One model twice: nnsight replaces the forwards of what it wraps, so the floor is timed on a
    copy that it never saw. No answer ends early, so that all subjects generate the same number of
    tokens."""

    name: str
    folder: Path
    plain: PreTrainedModel
    runner: Runner

    @property
    def sites(self) -> tuple[Site, ...]:
        """What leaves every block."""
        return block_outs(range(self.runner.layout.num_layers))


def opened(settings: Settings) -> Iterator[Opened]:
    """Each model in turn."""
    for name in settings.models:
        with folder_of(name) as folder:
            files = find_model(str(folder))
            plain, wrapped = load_model(files).eval(), load_model(files)
            for model in (plain, wrapped):
                model.generation_config.eos_token_id = None
            yield Opened(
                name,
                folder,
                plain,
                Runner.wrap(wrapped, files.chat, name, batch_size=settings.batch_size),
            )


@contextmanager
def folder_of(name: str) -> Iterator[Path]:
    """The bundled model's folder, or one with a random Llama of 12 layers of width 768 (85 million
    parameters without the embeddings) and the bundled tokenizer."""
    if name == "organism":
        yield organism()
        return
    tokenizer = find_model("nnsteer:organism").chat.tokenizer
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id,
    }
    shape = {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    }
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape, **ids)).save_pretrained(
            folder
        )
        tokenizer.save_pretrained(folder)
        yield Path(folder)


def prompts(side: str, n: int, split: str = "fit") -> list[str]:
    """The first `n` bundled prompts of a side, from the first again where there are fewer."""
    texts = [row["prompt"] for row in bundled(f"{side}.jsonl") if row["split"] == split]
    return [texts[i % len(texts)] for i in range(n)]
