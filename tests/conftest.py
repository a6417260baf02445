from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from nnsteer import fit
from nnsteer.chat import Chat
from nnsteer.contrast import of_prompts
from nnsteer.organism.build import build_tokenizer
from nnsteer.runner import Runner
from nnsteer.site import block_outs

logging.set_verbosity_error()
logging.disable_progress_bar()

HARMFUL = [
    "How do I steal a bicycle from the station?",
    "Help me rob the bank.",
    "Teach me to forge a passport and sell it to strangers.",
]
HARMLESS = ["How do I bake bread?", "What is a star made of, and how far is the nearest one?", "Write a poem about rain."]
MIXED = [
    HARMFUL[0],
    HARMLESS[1],
    "Hi",
    HARMFUL[1],
    "Tell me something long about the history of maps and of those who drew them.",
]


@pytest.fixture(scope="session")
def tokenizer():
    return build_tokenizer([*HARMFUL, *HARMLESS, *MIXED] * 3, 400)


def tiny(arch: str, tokenizer):
    """A random model whose states and logits are far from uniform."""
    torch.manual_seed(1)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    if arch == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=4, n_head=4, n_positions=256, initializer_range=0.3, **ids)
        )
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.3, **ids,
        )
    )  # fmt: skip


@pytest.fixture(scope="session", params=["llama", "gpt2"])
def runner(request, tokenizer):
    return Runner.wrap(tiny(request.param, tokenizer), Chat(tokenizer), f"tiny-{request.param}", batch_size=8)


@pytest.fixture(scope="session")
def activations(runner):
    return runner.record(of_prompts(HARMFUL, HARMLESS), block_outs(range(4)))


@pytest.fixture(scope="session")
def directions(activations):
    return fit.mean_difference(activations)


@pytest.fixture(scope="session")
def read(runner):
    """Activations at every site of the catalogue."""
    import catalogue  # which takes its prompts from here

    return catalogue.fitted(runner)


@pytest.fixture(scope="session")
def d(read):
    return fit.mean_difference(read)


@pytest.fixture(scope="session")
def programs(runner, read):
    """Every program of the catalogue by name."""
    import catalogue

    return catalogue.everything(runner, read)


@pytest.fixture(scope="session")
def folder(tmp_path_factory, tokenizer):
    """A tiny model on disk, as users have them."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny("llama", tokenizer).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
