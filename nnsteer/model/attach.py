"""A program on a plain transformers model: `generate`, pipelines, trainers and evaluation harnesses
see a steered model.

Within `with attach(model, program):` every call to the model is steered, and when the block ends,
by an exception too, the hooks are gone. A call without a cache (or with an empty one) is a prefill:
all its tokens are the prompt, and the conditions are decided anew; calls that continue its cache
are the generated tokens (so `generate` needs `use_cache=True` where that is not the model's
default, as in MPT). Contexts nest, the inner one seeing what the outer one made. Each thread has
its own verdicts, so threads may share an attached model; they share its programs as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nnsteer.errors import UserError
from nnsteer.kernels import edits
from nnsteer.model.given import as_program
from nnsteer.model.layout import find_layout
from nnsteer.model.load import identity_of
from nnsteer.model.lower import lower
from nnsteer.program.identity import require_same
from nnsteer.program.program import Program

Observe = Callable[[dict, "Pass", Tensor, Tensor], None]
"""Told of each visit: the visit, the pass, the states before and after, [row, token, hidden]."""
CACHES = ("past_key_values", "cache_params", "state")


@dataclass
class Pass:
    """Where the tokens of the running forward pass lie, and what was decided in its prefill."""

    tokens: dict
    """What `edits.tokens_of` says of them."""
    cache: Any
    number: int = 0
    """0 for the prefill, -1 for a short one that only reads conditions."""
    decided: bool = False
    scores: dict[int, Tensor] = field(default_factory=dict)
    verdicts: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Attached:
    """One attached program; the passes are per thread."""

    plan: dict
    observe: Observe
    local: threading.local = field(default_factory=threading.local)


class Stop(Exception):
    """Ends a pass that only reads conditions."""


def ignore(visit: dict, running: Pass, before: Tensor, after: Tensor) -> None:
    """The Observe that sees nothing."""


@contextmanager
def attach(
    model: PreTrainedModel, program: Program, observe: Observe = ignore
) -> Iterator[PreTrainedModel]:
    """The model with the program at work. Raises UserError for a direction that was fitted on
    another model."""
    check_fitted_on(model, program)
    with hooked(model, program, observe):
        yield model


def check_fitted_on(model: PreTrainedModel, program: Program) -> None:
    """Raises UserError for a direction that was fitted on another model."""
    identity = identity_of(model)
    for fitted in as_program(program).fitted:
        require_same(str(fitted), fitted.model, identity)


@contextmanager
def hooked(model: PreTrainedModel, program: Program, observe: Observe) -> Iterator[None]:
    """The hooks of `attach`, on a model that is known to be the right one."""
    attached = Attached(lower([program], find_layout(model)), observe)
    decoder = model.get_decoder()
    begin = partial(on_begin, attached)
    with ExitStack() as hooks:
        hooks.callback(decoder.register_forward_pre_hook(begin, with_kwargs=True).remove)
        for visit in attached.plan["visits"]:
            module = model.get_submodule(visit["path"])
            if visit["input"]:
                enter = partial(on_input, attached, visit)
                hook = module.register_forward_pre_hook(enter, with_kwargs=True)
            else:
                hook = module.register_forward_hook(partial(on_output, attached, visit))
            hooks.callback(hook.remove)
        yield


def on_begin(attached: Attached, decoder: nn.Module, args: tuple, kwargs: dict) -> None:
    """Finds where the tokens of a forward pass lie, and decides early conditions in a pass of their
    own."""
    last: Pass | None = getattr(attached.local, "running", None)
    if last is not None and last.number < 0:
        return
    tokens = first_given(kwargs, ("input_ids", "inputs_embeds"))
    rows, width = (args[0] if tokens is None else tokens).shape[:2]
    cache, mask = first_given(kwargs, CACHES), kwargs.get("attention_mask")
    if mask is not None and mask.dim() != 2:
        raise UserError(
            f"attention mask with {mask.dim()} dimensions: an attached model needs one of [row, "
            "token]"
        )
    if last is None or cache is None or not holds_tokens(cache, last):
        mask = torch.ones(rows, width, dtype=torch.long) if mask is None else mask[:, -width:]
        zeros = torch.zeros(rows, dtype=torch.long, device=mask.device)
        prompt = edits.tokens_of(edits.prefill_offsets(mask, zeros), mask.sum(1), mask)
        attached.local.running = Pass(prompt, cache)
        if attached.plan["ahead"]:
            read_ahead(attached.local.running, decoder, args, kwargs)
        return
    next_offset = last.tokens["offsets"][:, -1:] + 1
    offsets = next_offset + torch.arange(width, device=next_offset.device)
    new = edits.tokens_of(offsets, last.tokens["lengths"], torch.ones_like(offsets))
    attached.local.running = Pass(new, cache, last.number + 1, True, last.scores, last.verdicts)


def first_given(kwargs: dict, names: tuple[str, ...]) -> Any:
    """The first of the arguments that is not None."""
    return next((kwargs[name] for name in names if kwargs.get(name) is not None), None)


def holds_tokens(cache: Any, last: Pass) -> bool:
    """Whether a cache continues a prefill; one that can't say does if it is the last pass's."""
    if not hasattr(cache, "get_seq_length"):
        return cache is last.cache
    try:
        return int(cache.get_seq_length()) > 0
    except ValueError:  # a recurrent model's cache has no length
        return cache.has_previous_state()


def read_ahead(running: Pass, decoder: nn.Module, args: tuple, kwargs: dict) -> None:
    """Decides the conditions in a short pass over the prompt, unsteered and without a cache."""
    uncached = {name: value for name, value in kwargs.items() if name not in CACHES}
    running.number = -1
    try:
        with torch.no_grad(), suppress(Stop):
            decoder(*args, **uncached | {"use_cache": False})
    finally:
        running.number = 0
    running.decided = True


def on_output(
    attached: Attached, visit: dict, _module: nn.Module, _args: tuple, output: Any
) -> Any:
    """Reads and edits what leaves a module."""
    changed = visited(attached, visit, edits.hidden(output))
    return None if changed is None else edits.put(output, changed)


def on_input(attached: Attached, visit: dict, _module: nn.Module, args: tuple, kwargs: dict) -> Any:
    """Reads and edits what enters a module: its first argument, by place or by name."""
    name = None if args else next(iter(kwargs))
    changed = visited(attached, visit, args[0] if name is None else kwargs[name])
    if changed is None:
        return None
    return ((changed, *args[1:]), kwargs) if name is None else (args, kwargs | {name: changed})


def visited(attached: Attached, visit: dict, h: Tensor) -> Tensor | None:
    """The states after a visit's edits; None where it makes none."""
    running: Pass = attached.local.running
    conditions = attached.plan["conditions"]
    if not running.decided:
        for c in visit["conditions"]:
            running.scores[c] = edits.score(h, conditions[c], running.tokens)
            running.verdicts[c] = edits.verdict(running.scores[c], conditions[c])
        if running.number < 0 and len(running.verdicts) == len(conditions):
            raise Stop
    if running.number < 0 or not visit["edits"] or (running.number > 0 and not visit["decodes"]):
        return None
    new = edits.apply(h, visit["edits"], running.tokens, running.verdicts)
    attached.observe(visit, running, h, new)
    return new
