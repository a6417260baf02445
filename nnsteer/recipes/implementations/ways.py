"""Ways to add one vector to every token of a model, in the prefill and at each decode step. Each is a context that gives the
steered model's two calls, and leaves the model as it was, after an exception too."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from nnsteer.errors import UserError
from nnsteer.model.attach import attach
from nnsteer.model.bake import bake
from nnsteer.model.completion import end_ids
from nnsteer.model.load import reason
from nnsteer.model.runner import Runner
from nnsteer.model.traces import GREEDY
from nnsteer.program.direction import Direction
from nnsteer.program.program import Program, add

# the linear maps that read an attention's input, by the names that families give them
MAPS = ("c_attn", "qkv_proj", "query_key_value", "q_proj", "k_proj", "v_proj")


@dataclass(frozen=True)
class Subject:
    """What is steered, with what, and what it is asked."""

    runner: Runner
    model: PreTrainedModel
    """The same weights, which nnsight has never touched."""
    direction: Direction
    """What is added at a block's output, per unit of the coefficient."""
    input_vector: Tensor | None
    """[hidden], the same at the input of that block's attention; None where no linear map reads it."""
    prompt: str
    max_new_tokens: int

    @property
    def block(self) -> str:
        """The path of the steered block."""
        return self.runner.layout.path(self.direction.site)

    @property
    def ids(self) -> Tensor:
        """The prompt's tokens, [1, token]."""
        return row(self.runner.chat.prompt_ids(self.prompt), self.model)

    def program(self, c: float) -> Program:
        """The addition in nnsteer's words."""
        return add({self.direction.site: self.direction}, c)

    def shift(self, c: float) -> Tensor:
        """The addition at the block's output, [hidden]."""
        return c * self.direction.vector.to(self.model.device, self.model.dtype)

    def input_shift(self, c: float) -> Tensor:
        """The addition at the attention's input, [hidden]. Raises UserError where no known map reads it."""
        if self.input_vector is None:
            raise UserError(f"no linear map of the block is called {', '.join(MAPS)}")
        return c * self.input_vector.to(self.model.dtype)

    def answered(self, new: list[int]) -> list[int]:
        """The generated tokens before the one that ends the answer."""
        ends = end_ids(self.model)
        return list(takewhile(lambda token: token not in ends, new))


class Steered(NamedTuple):
    """The steered model's calls: one pass over given tokens to logits, fp32 [token, vocab]; the tokens of a greedy answer."""

    logits: Callable[[list[int]], Tensor]
    answer: Callable[[], list[int]]


@contextmanager
def nnsight(s: Subject, c: float) -> Iterator[Steered]:
    """nnsteer's Runner: an nnsight trace for each call."""
    program = s.program(c)
    yield Steered(
        lambda ids: s.runner.forward(s.runner.chat.pad([(ids, [])]), [program])[0],
        lambda: list(s.runner.generate([s.prompt], program, s.max_new_tokens)[0].ids),
    )


@contextmanager
def hook(s: Subject, c: float) -> Iterator[Steered]:
    """A PyTorch forward hook on the block."""
    shift = s.shift(c)
    handle = s.model.get_submodule(s.block).register_forward_hook(lambda _block, _args, output: shifted(output, shift))
    try:
        yield plain(s, s.model)
    finally:
        handle.remove()


class Wrapper(nn.Module):
    """A block whose output is shifted."""

    def __init__(self, block: nn.Module, shift: Tensor) -> None:
        super().__init__()
        self.block, self.shift = block, shift

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the block returns, shifted."""
        return shifted(self.block(*args, **kwargs), self.shift)


@contextmanager
def wrapper(s: Subject, c: float) -> Iterator[Steered]:
    """A module put in the block's place that calls it. Meanwhile the paths below it are other ones."""
    block = s.model.get_submodule(s.block)
    s.model.set_submodule(s.block, Wrapper(block, s.shift(c)))
    try:
        yield plain(s, s.model)
    finally:
        s.model.set_submodule(s.block, block)


@contextmanager
def transformer_lens(s: Subject, c: float) -> Iterator[Steered]:
    """TransformerLens's bridge around a copy of the model, weights as they are, with a hook at hook_resid_post."""
    shift, ids = s.shift(c), s.ids
    name = f"blocks.{s.direction.site.layer}.hook_resid_post"
    try:
        from transformer_lens.model_bridge import TransformerBridge

        bridge = TransformerBridge.boot_transformers(
            s.runner.model.name,
            hf_model=copy.deepcopy(s.model),
            tokenizer=copy.deepcopy(s.runner.chat.tokenizer),
            device=str(s.model.device),
            dtype=s.model.dtype,
        )

        def logits(given: list[int]) -> Tensor:
            with torch.no_grad():
                return bridge(row(given, s.model))[0].float().cpu()

        def answer() -> list[int]:
            new = bridge.generate(ids, s.max_new_tokens, do_sample=False, return_type="tokens", verbose=False)
            return s.answered(new[0, ids.shape[1] :].tolist())

        with bridge.hooks(fwd_hooks=[(name, lambda h, hook: h + shift)]):  # noqa: ARG005, it is passed by name
            yield Steered(logits, answer)
    except Exception as error:  # whatever stops another library costs its row, not the run
        raise UserError(f"{type(error).__name__}: {reason(error)}") from error


@contextmanager
def attached(s: Subject, c: float) -> Iterator[Steered]:
    """nnsteer's `attach`: the program as hooks on a plain model."""
    with attach(s.model, s.program(c)):
        yield plain(s, s.model)


@contextmanager
def baked(s: Subject, c: float) -> Iterator[Steered]:
    """nnsteer's `bake`: the program in the weights of a copy."""
    yield plain(s, bake(s.model, s.program(c)))


@contextmanager
def input_hook(s: Subject, c: float) -> Iterator[Steered]:
    """PyTorch hooks on the maps that read the attention's input: queries, keys and values see the shift, the stream does not."""
    shift = s.input_shift(c)
    maps = attention_maps(s.model.get_submodule(s.block))
    handles = [m.register_forward_pre_hook(lambda _map, args: (args[0] + shift, *args[1:])) for m in maps]
    try:
        yield plain(s, s.model)
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def bias(s: Subject, c: float) -> Iterator[Steered]:
    """The same shift v as a bias: W (x + v) + b = W x + (W v + b), and W v + b is what the map makes of v alone."""
    shift = s.input_shift(c)
    maps = attention_maps(s.model.get_submodule(s.block))
    before = [m.bias for m in maps]
    try:
        for m in maps:
            with torch.no_grad():
                m.bias = nn.Parameter(m(shift))
        yield plain(s, s.model)
    finally:
        for m, own in zip(maps, before, strict=True):
            m.bias = own  # the parameter itself and no copy, so every bit is back


Way = Callable[[Subject, float], AbstractContextManager[Steered]]
WAYS: dict[str, dict[str, Way]] = {  # by site; a site's first is what the others are held against
    "block output": {
        "nnsight": nnsight,
        "PyTorch hook": hook,
        "module wrapper": wrapper,
        "TransformerLens": transformer_lens,
        "attach": attached,
        "bake": baked,
    },
    "attention input": {"PyTorch hook": input_hook, "bias edit": bias},
}


def plain(s: Subject, model: PreTrainedModel) -> Steered:
    """The two calls of a transformers model."""
    ids = s.ids

    def logits(given: list[int]) -> Tensor:
        with torch.no_grad():
            return model(row(given, model), use_cache=False).logits[0].float().cpu()

    def answer() -> list[int]:
        pad = s.runner.chat.tokenizer.eos_token_id  # of no use to a single row, but transformers warns without one
        new = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=s.max_new_tokens, pad_token_id=pad, **GREEDY
        )
        return s.answered(new[0, ids.shape[1] :].tolist())

    return Steered(logits, answer)


def row(ids: list[int], model: PreTrainedModel) -> Tensor:
    """[1, token], where the model is."""
    return torch.tensor([ids], device=model.device)


def shifted(output: Any, shift: Tensor) -> Any:
    """What a block returns with its states moved: a tensor in transformers 5, a tuple before it and in some families."""
    return output + shift if isinstance(output, Tensor) else (output[0] + shift, *output[1:])


def attention_maps(block: nn.Module) -> list[nn.Linear | Conv1D]:
    """The linear maps of a block that read its attention's input; none where the family calls them something else."""
    last_names = [(name.rpartition(".")[2], module) for name, module in block.named_modules()]
    return [module for name, module in last_names if name in MAPS and isinstance(module, nn.Linear | Conv1D)]


def difference_at_input(model: PreTrainedModel, block: str, first: list[int], second: list[int]) -> Tensor | None:
    """What the last token of `first` brings to a block's attention minus what that of `second` does, fp32 [hidden]; None where
    no known map reads it."""
    maps, seen = attention_maps(model.get_submodule(block)), []
    if not maps:
        return None
    handle = maps[0].register_forward_pre_hook(lambda _map, args: seen.append(args[0][0, -1].float()))
    try:
        with torch.no_grad():
            for ids in (first, second):
                model(row(ids, model), use_cache=False)
    finally:
        handle.remove()
    return seen[0] - seen[1]
