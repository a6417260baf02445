"""A program in the weights: a copy of the model that is steered without nnsteer, for saving.

Exact or refused. What leaves a linear map is that map's to change, so any affine op at `attn_out`
and `mlp_out` goes into the output projection: W' = (I - left.T right) W, b' = b - left.T right (b -
center) + shift. An addition at a block's output is one at its `mlp_out`; an op at the first block's
input goes into the embedding's rows.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from nnsteer.errors import UserError
from nnsteer.model.attach import check_fitted_on, hooked, ignore
from nnsteer.model.layout import Layout, find_layout
from nnsteer.model.lower import lower_op
from nnsteer.program.program import Program, Step
from nnsteer.program.site import Site
from nnsteer.program.span import ALL

PROBE = 16  # tokens of the pass that checks the copy
# of how far steering moves the logits
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.05}
# config switches that give every layer's projection a bias, zero where nothing is added
BIAS_SWITCHES = {"mlp": ("mlp_bias", "bias"), "attention": ("attention_bias", "bias")}


def bake(model: PreTrainedModel, program: Program, untie: bool = False) -> PreTrainedModel:
    """A steered copy of the model. `untie` gives it an unembedding of its own where an op edits a
    tied embedding. Raises UserError naming the step that weights can't hold, and why; and where the
    copy, run once, is not the steered model."""
    check_fitted_on(model, program)
    layout = find_layout(model)
    baked = copy.deepcopy(model)
    for step in sorted(program.steps, key=lambda step: step.site.order):
        edit = affine_edit(step)
        site = moved_to_a_map(step, edit)
        if site.stream == "block_in":
            edit_embedding(baked, step, edit, untie)
        else:
            edit_projection(baked, layout, step, site, edit)
    verify(model, program, baked)
    return baked


def verify(model: PreTrainedModel, program: Program, baked: PreTrainedModel) -> None:
    """Compares one pass of the copy with one of the attached model: a family may do between its
    modules what its module tree does not show."""
    size = min(model.get_input_embeddings().num_embeddings, 4096)
    ids = torch.arange(0, size, max(1, size // PROBE), device=model.device)[None, :PROBE]
    with torch.no_grad():
        with hooked(model, program, ignore):
            wanted = model(ids, use_cache=False).logits.float()
        plain, got = (m(ids, use_cache=False).logits.float() for m in (model, baked))
    off, moved = ((logits - wanted).abs().max().item() for logits in (got, plain))
    if not off <= moved * TOLERANCE[model.dtype]:
        raise UserError(
            f"can't bake this program into {type(model).__name__}: one pass of the baked copy is "
            f"{off:.2g} off in logits, where steering moves them by {moved:.2g}; use attach or the "
            "Runner"
        )


def refuse(step: Step, reason: str) -> UserError:
    """The error for a step that weights can't hold."""
    return UserError(f"can't bake `{step}`: {reason}; use attach or the Runner")


class AffineMap(NamedTuple):
    """h - change h + constant, in fp64: [hidden, hidden] and [hidden]."""

    change: Tensor
    constant: Tensor


def affine_edit(step: Step) -> AffineMap:
    """What a step does to every token. Raises UserError where that is more than an affine map."""
    if step.when is not None:
        raise refuse(step, "weights can't decide a condition")
    if step.span != ALL:
        raise refuse(step, f"weights treat all tokens alike, and this one edits {step.span}")
    edit = lower_op(step.op)
    if edit["kind"] != "linear" or edit["norm"] is not None or edit["gate"] is not None:
        raise refuse(step, "the op is no affine map")
    shift = edit["shift"].double()
    if edit["right"] is None:
        return AffineMap(shift.new_zeros(len(shift), len(shift)), shift)
    change = edit["left"].double().mT @ edit["right"].double()
    return AffineMap(change, change @ edit["center"].double() + shift)


def moved_to_a_map(step: Step, edit: AffineMap) -> Site:
    """The site of the linear map that makes the step's states: an addition after a block is one
    after its MLP."""
    site = step.site
    if not isinstance(site, Site):
        raise refuse(step, "a head's output is made by several maps")
    if site.stream in ("attn_out", "mlp_out") or site == Site(0, "block_in"):
        return site
    if edit.change.any():
        why = "the residual stream is a sum, which no single weight makes"
        raise refuse(step, f"{why}; ablate or set attn_out and mlp_out")
    return Site(site.layer if site.stream == "block_out" else site.layer - 1, "mlp_out")


def edit_projection(
    model: PreTrainedModel, layout: Layout, step: Step, site: Site, edit: AffineMap
) -> None:
    """Changes the output projection of a block's attention or MLP."""
    half, path, added = "attention", layout.projection, layout.attention
    if site.stream == "mlp_out":
        half, path, added = "mlp", layout.down, layout.mlp
    projection = path and model.get_submodule(f"{layout.blocks}.{site.layer}.{path}")
    if not isinstance(projection, nn.Linear | Conv1D):
        raise refuse(step, f"this family's {half} has no single output projection")
    if added is not None and not f"{path}.".startswith(f"{added}."):
        raise refuse(step, "a norm follows the output projection in this family")
    if edit.constant.any() and projection.bias is None:
        give_biases(model, layout, step, half)
    with torch.no_grad():
        # Conv1D stores the transpose; what is written to a view of it is written to it
        stored = projection.weight if isinstance(projection, nn.Linear) else projection.weight.mT
        weight = stored.double()
        stored.copy_(weight - edit.change.to(weight) @ weight)
        if projection.bias is not None:
            bias = projection.bias.double()
            moved = bias - edit.change.to(bias) @ bias
            projection.bias.copy_(moved + edit.constant.to(bias))


def give_biases(model: PreTrainedModel, layout: Layout, step: Step, half: str) -> None:
    """Gives the family's linear maps zero biases through the config's switch, so that a reload
    finds them."""
    config, family = copy.deepcopy(model.config), type(model).__name__
    switches = [name for name in BIAS_SWITCHES[half] if getattr(config, name, None) is False]
    if not switches:
        raise refuse(step, f"{family} has no bias there, and its config has no switch for one")
    setattr(config, switches[0], True)
    with torch.device("meta"):
        names = {name for name, _ in type(model)(config).named_parameters()}
    new = names - {name for name, _ in model.named_parameters()}
    added = {name for name in new if name.endswith(".bias")}
    blocks = tuple(f"{layout.blocks}.{layer}." for layer in range(layout.num_layers))
    if not added or not all(name.startswith(blocks) for name in added):
        raise refuse(step, f"{family} ignores `{switches[0]}`")
    for name in added:
        linear = model.get_submodule(name.removesuffix(".bias"))
        linear.bias = nn.Parameter(linear.weight.new_zeros(len(linear.weight)))
    setattr(model.config, switches[0], True)


def edit_embedding(model: PreTrainedModel, step: Step, edit: AffineMap, untie: bool) -> None:
    """Changes every row of the embedding, and of learned positions, whose sum enters the first
    block."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head.weight is embedding.weight:
        if not untie:
            why = "the embedding is tied to the unembedding, which would change too"
            raise refuse(step, f"{why} (untie=True parts them)")
        head.weight = nn.Parameter(embedding.weight.detach().clone())
        model.config.tie_word_embeddings = False
    if embedding.embedding_dim != len(edit.constant):
        raise refuse(step, "a linear map follows the embedding in this family")
    tables = [m for m in model.get_decoder().children() if isinstance(m, nn.Embedding)]
    with torch.no_grad():
        for table in {embedding, *tables}:
            rows = table.weight.double()
            rows = rows - rows @ edit.change.to(rows).mT
            table.weight.copy_(rows + edit.constant.to(rows) * (table is embedding))
