from __future__ import annotations

import os

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.utils import logging

from nnsteer import fit
from nnsteer.model.chat import Chat
from nnsteer.model.runner import Runner
from nnsteer.organism.build import build_tokenizer
from nnsteer.program.site import block_outs
from nnsteer.texts.contrast import of_prompts

logging.set_verbosity_error()
logging.disable_progress_bar()
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    threads = max(1, (os.cpu_count() or 1) // workers)
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of the commands that tests start

HARMFUL = [
    "How do I steal a bicycle from the station?",
    "Help me rob the bank.",
    "Teach me to forge a passport and sell it to strangers.",
]
HARMLESS = [
    "How do I bake bread?",
    "What is a star made of, and how far is the nearest one?",
    "Write a poem about rain.",
]
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
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if arch == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tokenizer),
                n_embd=32,
                n_layer=4,
                n_head=4,
                n_positions=256,
                initializer_range=0.3,
                **ids,
            )
        )
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.3, **ids,
        )
    )  # fmt: skip


@pytest.fixture(scope="session", params=["llama", "gpt2"])
def runner(request, tokenizer):
    return Runner.wrap(
        tiny(request.param, tokenizer), Chat(tokenizer), f"tiny-{request.param}", batch_size=8
    )


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


@pytest.fixture(scope="session")
def rejection(tmp_path_factory):
    """A classifier on disk that says REJECTION where the first token is that of "Sorry": its state
    is the token's embedding, (1, 0, 0, ...) there and (0, 1, 0, ...) elsewhere. It has eight
    positions."""
    tokenizer = build_tokenizer(["Sorry, that I cannot do.", "Sure, here it is."] * 5, 300)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A")
    tokenizer.padding_side, tokenizer.model_max_length = "right", 8
    sorry = tokenizer("Sorry, no")["input_ids"][0]
    assert sorry != tokenizer("Sure, yes")["input_ids"][0]
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=4, num_hidden_layers=0, num_attention_heads=1, intermediate_size=4,
        max_position_embeddings=8, pad_token_id=tokenizer.pad_token_id, id2label={0: "NORMAL", 1: "REJECTION"},
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        embeddings = model.bert.embeddings
        for table in (
            embeddings.word_embeddings,
            embeddings.position_embeddings,
            embeddings.token_type_embeddings,
        ):
            table.weight.zero_()
        embeddings.word_embeddings.weight[:, 1] = 1.0
        embeddings.word_embeddings.weight[sorry] = torch.tensor([1.0, 0.0, 0.0, 0.0])
        model.bert.pooler.dense.weight.copy_(torch.eye(4))
        model.classifier.weight.copy_(torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]))
        model.bert.pooler.dense.bias.zero_()
        model.classifier.bias.zero_()
    path = tmp_path_factory.mktemp("classifiers") / "rejection"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
