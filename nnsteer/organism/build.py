"""An untrained organism: a byte-level BPE tokenizer with a chat template, a tiny Llama or GPT-2."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

Arch = Literal["llama", "gpt2"]
BOS, PAD, END = "<|begin|>", "<|pad|>", "<|end|>"
ROLES = ["<|system|>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WIDTH, LAYERS, HEADS, POSITIONS = 128, 4, 4, 512


def build_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Learns merges from the texts. Like most chat tokenizers it puts a BOS before plain text, and
    its template writes one too: tokenise a rendered chat with `add_special_tokens=False`."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, PAD, END, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    bos = [(BOS, tokenizer.token_to_id(BOS))]
    with_bos = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=bos)
    tokenizer.post_processor = with_bos
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=ROLES,
        chat_template=TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_model(arch: Arch, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Random weights; about 1.9 million parameters with a vocabulary of 8,192."""
    options = {"intermediate_size": 3 * WIDTH, "tie_word_embeddings": True}
    config = AutoConfig.for_model(
        arch,
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=POSITIONS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **(options if arch == "llama" else {}),
    )
    return AutoModelForCausalLM.from_config(config)
