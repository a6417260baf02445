"""Model family to module paths: where the blocks are, found from the module tree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import PretrainedConfig, PreTrainedModel

from nnsteer.errors import UserError
from nnsteer.site import Site

ATTENTION = ("self_attn", "attn", "attention", "self_attention")
MLP = ("mlp", "ffn", "feed_forward")


@dataclass(frozen=True)
class Layout:
    """Module paths from the model's root."""

    blocks: str
    num_layers: int
    attention: str | None
    mlp: str | None
    head: str

    def path(self, site: Site) -> str:
        """The module whose output (for `block_in`, input) holds the site's residual stream or what is added to it."""
        if site.layer >= self.num_layers:
            raise UserError(f"{site}: this model has {self.num_layers} layers, 0 to {self.num_layers - 1}")
        block = f"{self.blocks}.{site.layer}"
        if site.stream in ("block_in", "block_out"):
            return block
        child = self.attention if site.stream == "attn_out" else self.mlp
        if child is None:
            raise UserError(f"{site}: this model's blocks have no such module; use block_in or block_out")
        return f"{block}.{child}"


def num_layers(config: PretrainedConfig) -> int:
    """The number of blocks, known before any weights are loaded."""
    return int(config.get_text_config().num_hidden_layers)


def check_layers(asked: Iterable[int], layers: int) -> None:
    """Raises UserError when a layer is not there."""
    for layer in asked:
        if not 0 <= layer < layers:
            raise UserError(f"layer {layer}: this model has {layers} layers; give layers from 0 to {layers - 1}")


def find_layout(model: PreTrainedModel) -> Layout:
    """Finds the one list of blocks that the config announces, within the decoder (an image tower can have as many)."""
    decoder, n = model.get_decoder(), num_layers(model.config)
    names = {id(module): name for name, module in model.named_modules()}
    for module in decoder.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == n:
            children = [name for name, _ in module[0].named_children()]
            return Layout(
                blocks=names[id(module)],
                num_layers=n,
                attention=next((name for name in ATTENTION if name in children), None),
                mlp=next((name for name in MLP if name in children), None),
                head=names[id(model.get_output_embeddings())],
            )
    raise UserError(f"{type(model).__name__}: found no list of {n} blocks; this family is not supported yet")
