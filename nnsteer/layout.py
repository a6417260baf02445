"""Model family to module paths: where the blocks are and what is in them, found from the module tree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import PretrainedConfig, PreTrainedModel

from nnsteer.errors import UserError
from nnsteer.site import Head, Place

ATTENTION = ("self_attn", "attn", "attention", "self_attention")
MLP = ("mlp", "ffn", "feed_forward")
PROJECTION = ("o_proj", "c_proj", "dense", "out_proj")  # the attention's output projection


@dataclass(frozen=True)
class Layout:
    """Module paths from the model's root; None where a family has no such module."""

    blocks: str
    num_layers: int
    attention: str | None
    """Within a block: what attention adds to the residual stream."""
    mlp: str | None
    projection: str | None
    """Within a block: the linear map whose input holds the attention heads side by side."""
    num_heads: int
    head_width: int
    head: str
    """The unembedding."""

    def path(self, site: Place) -> str:
        """The module whose output (for `block_in` and heads, input) holds the site's states."""
        if site.layer >= self.num_layers:
            raise UserError(f"{site}: this model has {self.num_layers} layers, 0 to {self.num_layers - 1}")
        block = f"{self.blocks}.{site.layer}"
        if isinstance(site, Head):
            if site.head >= self.num_heads:
                raise UserError(f"{site}: this model has {self.num_heads} attention heads, 0 to {self.num_heads - 1}")
            child = self.projection
        elif site.stream in ("block_in", "block_out"):
            return block
        else:
            child = self.attention if site.stream == "attn_out" else self.mlp
        if child is None:
            raise UserError(f"{site}: this model's blocks have no such module; use block_in or block_out")
        return f"{block}.{child}"

    def reads_input(self, site: Place) -> bool:
        """Whether the site is the input of its module."""
        return isinstance(site, Head) or site.stream == "block_in"

    def columns(self, site: Place) -> tuple[int, int] | None:
        """The slice of the module's hidden dimension that is the site's; None for the whole."""
        if not isinstance(site, Head):
            return None
        return site.head * self.head_width, (site.head + 1) * self.head_width


def num_layers(config: PretrainedConfig) -> int:
    """The number of blocks, known before any weights are loaded."""
    return int(config.get_text_config().num_hidden_layers)


def check_layers(asked: Iterable[int], layers: int) -> None:
    """Raises UserError when a layer is not there."""
    for layer in asked:
        if not 0 <= layer < layers:
            raise UserError(f"layer {layer}: this model has {layers} layers; give layers from 0 to {layers - 1}")


def find_layout(model: PreTrainedModel) -> Layout:
    """Finds the one list of blocks that the config announces, within the decoder (an image tower can have as many). Raises
    UserError where the tree does not show it."""
    decoder, n = model.get_decoder(), num_layers(model.config)
    names = {id(module): name for name, module in model.named_modules()}
    lists = [m for m in decoder.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == n]
    if not lists or model.get_output_embeddings() is None:
        raise UserError(f"{type(model).__name__}: found no list of {n} blocks with an unembedding; this family is not supported")
    block = lists[0][0]
    attention, mlp = child_of(block, ATTENTION), child_of(block, MLP)
    projection = None
    if attention is not None and (found := child_of(getattr(block, attention), PROJECTION)) is not None:
        projection = f"{attention}.{found}"
    if hasattr(block, "post_feedforward_layernorm"):  # a norm between each half and the stream (Gemma 2 and 3, OLMo 2)
        attention, mlp = "post_attention_layernorm", "post_feedforward_layernorm"
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", 0) or 0
    width = getattr(config, "head_dim", None) or config.hidden_size // max(1, heads)
    return Layout(
        blocks=names[id(lists[0])],
        num_layers=n,
        attention=attention,
        mlp=mlp,
        projection=projection,
        num_heads=heads,
        head_width=width,
        head=names[id(model.get_output_embeddings())],
    )


def child_of(block: torch.nn.Module, candidates: tuple[str, ...]) -> str | None:
    """The first of the names that the module has a child of."""
    children = dict(block.named_children())
    return next((name for name in candidates if name in children), None)
