"""The peers' side: a process that does its job once to warm up, says so, and does a round of it for
each line it is sent."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """Files and numbers of one job. The texts are rendered chats without their BOS, which the
    tokenizer writes."""

    kind: str
    """`extract` directions from positive and negative texts, or `generate` from batches of
    texts."""
    model: str
    threads: int
    batch_size: int = 1
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    batches: tuple[tuple[str, ...], ...] = ()
    new_tokens: int = 0


def serve(name: str, prepare: Callable) -> None:
    """`prepare(job, model, tokenizer, tensors)` gives rounds by name, functions to tensors by name.
    Those of the first go to a file; of each later one the seconds are printed."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    folder = Path(sys.argv[1])
    job = Job(**json.loads((folder / "job.json").read_text()))
    torch.set_num_threads(job.threads)
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    own = json.loads((Path(job.model) / "tokenizer_config.json").read_text())
    special = {name: own[name] for name in ("bos_token", "eos_token", "pad_token", "padding_side")}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(Path(job.model) / "tokenizer.json"), **special
    )
    rounds = prepare(job, model, tokenizer, load_file(folder / "tensors.safetensors"))
    with torch.no_grad():
        for made, once in rounds.items():
            save_file(
                {key: tensor.contiguous() for key, tensor in once().items()},
                folder / f"{name}-{made}.safetensors",
            )
        print(json.dumps({"rounds": list(rounds)}), flush=True)
        for line in sys.stdin:
            start = time.perf_counter()
            rounds[line.strip()]()
            print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


def tokenised(job: Job, tokenizer) -> list[dict]:
    """The batches to generate from, padded on the left."""
    batches = [tokenizer(list(texts), padding=True, return_tensors="pt") for texts in job.batches]
    return [
        {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        for batch in batches
    ]


def generated(job: Job, batches: list[dict], generate: Callable) -> dict:
    """The new tokens of every batch, by its number; `generate` takes a batch and transformers'
    settings."""
    settings = {"max_new_tokens": job.new_tokens, "do_sample": False}
    return {
        str(i): generate(batch, settings)[:, -job.new_tokens :] for i, batch in enumerate(batches)
    }
