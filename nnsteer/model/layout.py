"""Model family to module paths: where the blocks and their parts are, by the module tree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from nnsteer.errors import UserError
from nnsteer.program.site import Head, Place, Site, as_place

ATTENTION = ("self_attn", "attn", "attention", "self_attention")
MLP = ("mlp", "ffn", "feed_forward")
PROJECTION = ("o_proj", "c_proj", "dense", "out_proj")  # the attention's output projection
DOWN = ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "fc_out")  # the MLP's
POST_NORMS = (  # between each half and the stream
    ("post_attention_layernorm", "post_feedforward_layernorm"),  # Gemma 2 and 3, OLMo 2
    ("post_self_attn_layernorm", "post_mlp_layernorm"),  # GLM-4
)
UNMASKED = ("rwkv", "recurrent_gemma")
# config fields with which a family caps or scales the logits after its unembedding
CAPPED = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
SCALED = ("logit_scale", "logits_scaling", "lm_head_multiplier")

Sites = Place | int | Iterable[Place | int]
"""One place or several; a layer's number stands for what leaves that block."""


@dataclass(frozen=True)
class Layout:
    """Module paths from the model's root; None where a family has no such module."""

    blocks: str
    num_layers: int
    attention: str | None
    """Within a block: the module whose output attention adds to the residual stream."""
    mlp: str | None
    """The same for the MLP."""
    projection: str | None
    """Within a block: the linear map that ends attention, whose input is the heads side by side."""
    down: str | None
    """Within a block: the linear map that ends the MLP."""
    num_heads: int
    head_width: int
    """The columns of each head in the projection's input; 0 where it has none of its own."""
    head: str
    """The module whose output holds the logits: the unembedding, or the model itself ("") where it
    caps or scales them."""
    outputs_alone: bool = False
    """Whether what enters a block is taken where it leaves the block before: NDIF's sandbox (ndif
    0.1.2) loses the cache of a generation in which a block's arguments are touched."""

    def path(self, site: Place) -> str:
        """The module whose output (for `block_in` and heads, input) holds the site's states. Raises
        UserError for a site that the model doesn't have."""
        layers, heads = self.num_layers, self.num_heads
        if site.layer >= layers:
            raise UserError(f"{site}: this model has {layers} layers, 0 to {layers - 1}")
        block = f"{self.blocks}.{site.layer}"
        if isinstance(site, Head):
            if 0 < heads <= site.head:
                raise UserError(f"{site}: this model has {heads} attention heads, 0 to {heads - 1}")
            child = self.projection if self.head_width else None
        elif site.stream in ("block_in", "block_out"):
            return f"{self.blocks}.{site.layer - 1}" if self.moves(site) else block
        else:
            child = self.attention if site.stream == "attn_out" else self.mlp
        if child is None:
            raise UserError(
                f"{site}: this model's blocks have no such module; use block_in or block_out"
            )
        return f"{block}.{child}"

    def reads_input(self, site: Place) -> bool:
        """Whether the site is the input of its module."""
        return isinstance(site, Head) or (site.stream == "block_in" and not self.moves(site))

    def moves(self, site: Site) -> bool:
        """Whether the site is the output of the block before."""
        return self.outputs_alone and site.stream == "block_in" and site.layer > 0

    def columns(self, site: Place) -> tuple[int, int] | None:
        """The slice of the module's hidden dimension that is the site's; None for the whole."""
        if not isinstance(site, Head):
            return None
        return site.head * self.head_width, (site.head + 1) * self.head_width

    def last_mlp(self, sites: Sequence[Place]) -> str | None:
        """The path of the MLP, or of the norm that follows it, after which of sites in forward
        order only the last comes; None where there is none."""
        last = sites[-1]
        mlp = Site(last.layer, "mlp_out")
        ends = last == mlp or (last == Site(last.layer) and mlp not in sites)
        return self.path(mlp) if ends and self.mlp is not None else None

    def places(self, sites: Sequence[Place], stops: bool = False) -> list[dict]:
        """What a trace needs to read sites, in forward order. In one that `stops` after them, the
        last has the path of the MLP that need not run on tokens that are not read."""
        places = []
        for site in sites:
            place = {"path": self.path(site), "input": self.reads_input(site), "mlp": None}
            places.append(place | {"columns": self.columns(site)})
        if places and stops:
            places[-1]["mlp"] = self.last_mlp(sites)
        return places


def num_layers(config: PretrainedConfig) -> int:
    """The number of blocks, known before any weights are loaded."""
    return int(config.get_text_config().num_hidden_layers)


def check_layers(numbers: Iterable[int], layers: int) -> None:
    """Raises UserError when a layer is not there."""
    for layer in numbers:
        if not 0 <= layer < layers:
            raise UserError(
                f"layer {layer}: this model has {layers} layers; give layers from 0 to {layers - 1}"
            )


def places_in(model: PreTrainedModel, sites: Sites) -> list[Place]:
    """Places that a model has, each once, in the order of the forward pass. Raises UserError for
    others, and for none."""
    given = [sites] if isinstance(sites, Site | Head | int) else list(sites)
    places = sorted({as_place(site) for site in given}, key=lambda place: place.order)
    if not places:
        raise UserError("sites: none given; give one, such as Site(12), or several")
    check_layers([place.layer for place in places], num_layers(model.config))
    return places


def find_layout(model: PreTrainedModel) -> Layout:
    """Finds the one list of blocks that the config announces, within the decoder (an image tower
    can have as many), and what every one of its blocks has. Raises UserError where the tree does
    not show it."""
    n, config = num_layers(model.config), model.config.get_text_config()
    modules = model.get_decoder().modules()
    lists = [m for m in modules if isinstance(m, nn.ModuleList) and len(m) == n]
    unembedding = model.get_output_embeddings()
    if not lists or unembedding is None:
        raise unsupported(model, f"found no list of {n} blocks with an unembedding")
    blocks = list(lists[0])
    if child_of(blocks, ["altup"]) is not None:  # Gemma 3n
        raise unsupported(model, "its blocks pass on several streams at once")
    if config.model_type in UNMASKED:
        raise unsupported(model, "pads would change its states, it ignores the mask")
    names = {id(module): name for name, module in model.named_modules()}
    attention, mlp = child_of(blocks, ATTENTION), child_of(blocks, MLP)
    projection = within(blocks, attention, PROJECTION)
    added_attention, added_mlp = halves(blocks, attention, mlp)
    heads = getattr(config, "num_attention_heads", 0) or 0
    rescaled = any(getattr(config, name, None) not in (None, 1) for name in CAPPED + SCALED)
    return Layout(
        blocks=names[id(lists[0])],
        num_layers=n,
        attention=added_attention,
        mlp=added_mlp,
        projection=projection,
        down=child_of(blocks, DOWN) if mlp is None else within(blocks, mlp, DOWN),
        num_heads=heads,
        head_width=columns_of_a_head(blocks, projection, heads),
        head="" if rescaled else names[id(unembedding)],
    )


def unsupported(model: PreTrainedModel, reason: str) -> UserError:
    """The error for a family whose blocks can't be read."""
    return UserError(f"{type(model).__name__}: {reason}; this family is not supported")


def halves(
    blocks: Sequence[nn.Module], attention: str | None, mlp: str | None
) -> tuple[str | None, str | None]:
    """The modules whose outputs a block adds to the stream: its attention and MLP, or the norms
    after them. None for both where the block may do more with them than add them."""
    names = [name for name in (attention, mlp) if name is not None]
    for block in blocks:
        if not only_adds(block, [block.get_submodule(name) for name in names]):
            return None, None
    for first, second in POST_NORMS:
        if child_of(blocks, [first]) and child_of(blocks, [second]):
            return first, second
    return attention, mlp


def only_adds(block: nn.Module, halves: Sequence[nn.Module]) -> bool:
    """Whether nothing in a block's tree speaks against its adding to its input what its halves
    give, and no more."""
    if [*block.parameters(recurse=False), *block.buffers(recurse=False)]:
        return False  # gates
    if any("residual" in signature(type(half).forward).parameters for half in halves):
        return False  # Bloom and MPT add inside
    if getattr(block, "residual_multiplier", 1) != 1:
        return False  # Granite scales before it adds
    inside = {id(p) for half in halves for p in half.parameters()}
    norms_alone = all(p.dim() == 1 for p in block.parameters() if id(p) not in inside)
    return len(halves) < 2 or norms_alone


def child_of(modules: Sequence[nn.Module], candidates: Sequence[str]) -> str | None:
    """The first of the names that every module has a child of."""
    shared = set.intersection(*({name for name, _ in m.named_children()} for m in modules))
    return next((name for name in candidates if name in shared), None)


def within(blocks: Sequence[nn.Module], half: str | None, candidates: Sequence[str]) -> str | None:
    """The same one level down, as a path from the block."""
    if half is None:
        return None
    child = child_of([block.get_submodule(half) for block in blocks], candidates)
    return child and f"{half}.{child}"


def columns_of_a_head(blocks: Sequence[nn.Module], projection: str | None, heads: int) -> int:
    """The width of each head's part of the projection's input; 0 where blocks differ or it does not
    divide."""
    if projection is None or not heads:
        return 0
    maps: list[Any] = [block.get_submodule(projection) for block in blocks]
    widths = {int(getattr(m, "in_features", 0) or m.nx) for m in maps}  # Conv1D calls it nx
    width, rest = divmod(max(widths), heads)
    return width if len(widths) == 1 and not rest else 0
