"""Tiny random models of many families, and written down by hand what nnsteer has to find in
them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from transformers import AutoConfig, AutoModelForCausalLM

LAYERS = 3
SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 256, "initializer_range": 0.3, "tie_word_embeddings": False,
}  # fmt: skip
WINDOW = {"sliding_window": 8}  # shorter than the prompts
WIDE = {"head_dim": 16}  # the heads together are wider than the stream
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}

# what bake refuses, by why
NO_MLP_BIAS = ("add at mlp_out", "add at block_out")
NO_BIAS = ("add at attn_out", *NO_MLP_BIAS)
MANY_MAPS = (*NO_MLP_BIAS, "ablate at mlp_out")
POST_NORMS = (*NO_BIAS, "ablate at attn_out", "ablate at mlp_out")
AFTER_EMBEDDING = ("add at block_in",)  # a scale, a norm or a linear map


@dataclass(frozen=True)
class Family:
    """Module paths: `blocks` and `after` (what follows the last block) from the root, the others
    within a block."""

    config: str
    options: dict
    blocks: str
    after: str
    attention: str | None = None
    mlp: str | None = None
    heads: str | None = None
    """The linear map whose input holds the attention heads."""
    unbaked: tuple[str, ...] = field(default=(), kw_only=True)
    """The edits of `test_bake` that are refused."""


def llama(config, *unbaked, **options):
    return Family(
        config,
        options,
        "model.layers",
        "model.norm",
        "self_attn",
        "mlp",
        "self_attn.o_proj",
        unbaked=unbaked,
    )


def feedforward_norms(config, *unbaked, **options):
    names = ("post_attention_layernorm", "post_feedforward_layernorm", "self_attn.o_proj")
    return Family(
        config, options, "model.layers", "model.norm", *names, unbaked=(*unbaked, *POST_NORMS)
    )


def falcon(**options):
    paths = ("transformer.h", "transformer.ln_f", "self_attention", "mlp", "self_attention.dense")
    return Family("falcon", options, *paths)


def neox(**options):
    paths = ("gpt_neox.layers", "gpt_neox.final_layer_norm", "attention", "mlp", "attention.dense")
    return Family("gpt_neox", options, *paths)


def opt(after, *unbaked, **options):
    paths = (
        "model.decoder.layers",
        f"model.decoder.{after}",
        "self_attn",
        None,
        "self_attn.out_proj",
    )
    return Family("opt", options | {"ffn_dim": 64}, *paths, unbaked=unbaked)


FAMILIES = {
    "Llama": llama("llama"),
    "Qwen2": llama("qwen2", *NO_BIAS),
    "Qwen3": llama("qwen3", *NO_MLP_BIAS, **WIDE),
    "Gemma 2": feedforward_norms("gemma2", *AFTER_EMBEDDING, **WIDE, **WINDOW, final_logit_softcapping=3.0),
    "Gemma 3": feedforward_norms("gemma3_text", *AFTER_EMBEDDING, **WIDE, **WINDOW, sliding_window_pattern=2),
    "Mistral": llama("mistral", *NO_BIAS, **WINDOW),
    "Mixtral": llama("mixtral", "add at attn_out", *MANY_MAPS, **EXPERTS),
    "GPT-2": Family("gpt2", {}, "transformer.h", "transformer.ln_f", "attn", "mlp", "attn.c_proj"),
    "GPT-NeoX": neox(),
    "GPT-NeoX, sequential": neox(use_parallel_residual=False),
    "Phi-3": llama("phi3", *NO_BIAS),
    "OLMo 2": feedforward_norms("olmo2"),
    "Falcon": falcon(),
    "Falcon, sequential, alibi": falcon(alibi=True, parallel_attn=False, multi_query=False),
    "Falcon, new decoder": falcon(new_decoder_architecture=True, num_kv_heads=2),
    "OPT": opt("final_layer_norm", word_embed_proj_dim=32),
    "OPT, post-norm": opt(
        "project_out", *AFTER_EMBEDDING, "add at block_out", word_embed_proj_dim=16, do_layer_norm_before=False,
        initializer_range=0.15,
    ),
    "StableLM": llama("stablelm", *NO_BIAS),
    "StableLM, parallel": llama("stablelm", *NO_BIAS, use_parallel_residual=True),
    "Cohere": llama("cohere", *NO_MLP_BIAS, logit_scale=0.5),
    "gpt-oss": llama("gpt_oss", *MANY_MAPS, **WIDE, **WINDOW, **EXPERTS),
    "Mamba": Family("mamba", {}, "backbone.layers", "backbone.norm_f", unbaked=("add at block_out",)),
    "Jamba": Family(
        "jamba", {"attn_layer_period": 2, "attn_layer_offset": 0, "num_experts": 1}, "model.layers", "model.final_layernorm",
        None, "feed_forward", unbaked=NO_MLP_BIAS,
    ),
    "Bloom": Family(
        "bloom", {}, "transformer.h", "transformer.ln_f", None, None, "self_attention.dense", unbaked=AFTER_EMBEDDING,
    ),
    "MPT": Family(
        "mpt", {"d_model": 32, "n_heads": 4, "n_layers": LAYERS, "max_seq_len": 256}, "transformer.blocks", "transformer.norm_f",
        None, None, "attn.out_proj", unbaked=("add at block_out",),
    ),
    "GLM-4": Family(
        "glm4", {"head_dim": 8}, "model.layers", "model.norm", "post_self_attn_layernorm", "post_mlp_layernorm",
        "self_attn.o_proj", unbaked=POST_NORMS,
    ),
    "Granite": Family(
        "granite", {"residual_multiplier": 0.5, "logits_scaling": 2.0}, "model.layers", "model.norm", None, None,
        "self_attn.o_proj", unbaked=("add at block_out",),
    ),
}  # fmt: skip

ALTUP = {
    "altup_num_inputs": 2,
    "laurel_rank": 4,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 512,
}
PER_LAYER = {
    "activation_sparsity_pattern": [0.0] * LAYERS,
    "layer_types": ["full_attention"] * LAYERS,
}
REFUSED = {
    "Gemma 3n": ("gemma3n_text", {"num_kv_shared_layers": 0} | ALTUP | PER_LAYER),
    "RecurrentGemma": ("recurrent_gemma", {"lru_width": 32}),
    "RWKV": ("rwkv", {}),
}


def build(config: str, options: dict, tokenizer):
    """The model, with logits far from uniform, and with biases and norms that do something."""
    torch.manual_seed(1)
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(config, vocab_size=len(tokenizer), **(SMALL | options), **ids)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.2 * torch.randn(parameter.shape)
    return model.eval()
