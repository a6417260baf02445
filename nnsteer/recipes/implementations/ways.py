"""Ways to add one vector to every token, in the prefill and at each decode step. Each is a context
that gives the steered model's two calls, and leaves the model as it was, after an exception too."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
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

BLOCK, ATTENTION = "block output", "attention input"
# the linear maps that read an attention's input, by the names that families give them
MAPS = ("c_attn", "qkv_proj", "query_key_value", "q_proj", "k_proj", "v_proj")


@dataclass(frozen=True)
class Subject:
    """What is steered, with what, and what it is asked."""

    runner: Runner
    model: PreTrainedModel
    """The same weights, which nnsight has never touched."""
    direction: Direction
    """What is added at a block's output, at length c."""
    input_vector: Tensor | None
    """[hidden], the same at its attention's input; None where no known map reads that."""
    prompt: str
    max_new_tokens: int

    @property
    def block(self) -> str:
        """The path of the steered block."""
        return self.runner.layout.path(self.direction.site)

    @property
    def tokens(self) -> list[int]:
        """The prompt's."""
        return self.runner.chat.prompt_ids(self.prompt)

    @property
    def lengths(self) -> dict[str, float]:
        """By how much the words differ, at each site where that can be read."""
        vectors = {BLOCK: self.direction.vector, ATTENTION: self.input_vector}
        return {site: v.norm().item() for site, v in vectors.items() if v is not None}

    def program(self, c: float) -> Program:
        """The addition in nnsteer's words."""
        return add({self.direction.site: self.direction.unit()}, c)

    def shift(self, c: float) -> Tensor:
        """The addition at the block's output, [hidden]."""
        return c * self.direction.unit().vector.to(self.model.device, self.model.dtype)

    def input_shift(self, c: float) -> Tensor:
        """The same at the attention's input. Raises UserError where no known map reads it."""
        if self.input_vector is None:
            raise UserError(f"no linear map of the block is called {', '.join(MAPS)}")
        return c * normalize(self.input_vector, dim=0).to(self.model.dtype)


class Steered(NamedTuple):
    """The steered model's calls: a pass over tokens, to logits, fp32 [token, vocab]; and the tokens
    of a greedy answer to the prompt."""

    logits: Callable[[list[int]], Tensor]
    answer: Callable[[], list[int]]


@contextmanager
def nnsight(subject: Subject, c: float) -> Iterator[Steered]:
    """nnsteer's Runner: an nnsight trace for each call."""
    runner, program, length = subject.runner, subject.program(c), subject.max_new_tokens
    yield Steered(
        lambda given: runner.forward(runner.chat.pad([(given, [])]), [program])[0],
        lambda: list(runner.generate([subject.prompt], program, length)[0].ids),
    )


@contextmanager
def hook(subject: Subject, c: float) -> Iterator[Steered]:
    """A PyTorch forward hook on the block."""
    block, shift = subject.model.get_submodule(subject.block), subject.shift(c)
    with block.register_forward_hook(lambda _block, _args, output: shifted(output, shift)):
        yield plain(subject, subject.model)


class Wrapper(nn.Module):
    """A block whose output is shifted."""

    def __init__(self, block: nn.Module, shift: Tensor) -> None:
        super().__init__()
        self.block, self.shift = block, shift

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the block returns, shifted."""
        return shifted(self.block(*args, **kwargs), self.shift)


@contextmanager
def wrapper(subject: Subject, c: float) -> Iterator[Steered]:
    """A module put in the block's place that calls it. Meanwhile the paths below it are others."""
    block = subject.model.get_submodule(subject.block)
    subject.model.set_submodule(subject.block, Wrapper(block, subject.shift(c)))
    try:
        yield plain(subject, subject.model)
    finally:
        subject.model.set_submodule(subject.block, block)


@contextmanager
def transformer_lens(subject: Subject, c: float) -> Iterator[Steered]:
    """A hook in TransformerLens's bridge around a copy of the model, weights as they are."""
    model, shift = subject.model, subject.shift(c)
    name = f"blocks.{subject.direction.site.layer}.hook_resid_post"
    try:
        from transformer_lens.model_bridge import TransformerBridge

        bridge = TransformerBridge.boot_transformers(
            subject.runner.model.name,
            hf_model=copy.deepcopy(model),
            tokenizer=copy.deepcopy(subject.runner.chat.tokenizer),
            device=str(model.device),
            dtype=model.dtype,
        )
        greedy = {"do_sample": False, "return_type": "tokens", "verbose": False}
        generate = partial(bridge.generate, max_new_tokens=subject.max_new_tokens, **greedy)
        with bridge.hooks(fwd_hooks=[(name, lambda h, hook: h + shift)]):  # noqa: ARG005, by name
            yield calls(subject, bridge, generate)
    except Exception as error:  # whatever stops another library costs its row, not the run
        raise UserError(f"{type(error).__name__}: {reason(error)}") from error


@contextmanager
def attached(subject: Subject, c: float) -> Iterator[Steered]:
    """nnsteer's `attach`: the program as hooks on a plain model."""
    with attach(subject.model, subject.program(c)):
        yield plain(subject, subject.model)


@contextmanager
def baked(subject: Subject, c: float) -> Iterator[Steered]:
    """nnsteer's `bake`: the program in the weights of a copy."""
    yield plain(subject, bake(subject.model, subject.program(c)))


@contextmanager
def input_hook(subject: Subject, c: float) -> Iterator[Steered]:
    """PyTorch hooks on the maps to queries, keys and values: the stream does not see the shift."""
    shift = subject.input_shift(c)
    with ExitStack() as hooks:
        for linear in attention_maps(subject.model, subject.block):
            handle = linear.register_forward_pre_hook(lambda _, args: (args[0] + shift, *args[1:]))
            hooks.enter_context(handle)
        yield plain(subject, subject.model)


@contextmanager
def bias(subject: Subject, c: float) -> Iterator[Steered]:
    """The same shift v as a bias: W (x + v) + b = W x + (W v + b), and W v + b is what the map
    makes of v alone."""
    shift = subject.input_shift(c)
    maps = attention_maps(subject.model, subject.block)
    biases = [linear.bias for linear in maps]
    try:
        for linear in maps:
            with torch.no_grad():
                linear.bias = nn.Parameter(linear(shift))
        yield plain(subject, subject.model)
    finally:
        for linear, before in zip(maps, biases, strict=True):
            linear.bias = before  # the parameter itself and no copy, so every bit is back


Way = Callable[[Subject, float], AbstractContextManager[Steered]]
WAYS: dict[str, dict[str, Way]] = {  # by site; a site's first is what the others are held against
    BLOCK: {
        "nnsight": nnsight,
        "PyTorch hook": hook,
        "module wrapper": wrapper,
        "TransformerLens": transformer_lens,
        "attach": attached,
        "bake": baked,
    },
    ATTENTION: {"PyTorch hook": input_hook, "bias edit": bias},
}


def plain(subject: Subject, model: PreTrainedModel) -> Steered:
    """The two calls of a transformers model."""
    pad = subject.runner.chat.tokenizer.eos_token_id  # of no use, but transformers warns without
    length = {"max_new_tokens": subject.max_new_tokens, "pad_token_id": pad}
    return calls(
        subject,
        lambda ids: model(ids, use_cache=False).logits,
        lambda ids: model.generate(ids, attention_mask=torch.ones_like(ids), **length, **GREEDY),
    )


def calls(
    subject: Subject, logits: Callable[[Tensor], Tensor], generate: Callable[[Tensor], Tensor]
) -> Steered:
    """The two calls, by a function of tokens, [1, token], to logits, [1, token, vocab], and one to
    the same tokens with a greedy answer behind them."""
    prompt, ends, device = subject.tokens, end_ids(subject.model), subject.model.device

    def one_pass(tokens: list[int]) -> Tensor:
        with torch.no_grad():
            return logits(torch.tensor([tokens], device=device))[0].float().cpu()

    def answer() -> list[int]:
        new = generate(torch.tensor([prompt], device=device))[0, len(prompt) :].tolist()
        return list(takewhile(lambda token: token not in ends, new))

    return Steered(one_pass, answer)


def shifted(output: Any, shift: Tensor) -> Any:
    """What a block returns, moved: a tensor, in transformers 4 and some families a tuple."""
    return output + shift if isinstance(output, Tensor) else (output[0] + shift, *output[1:])


def attention_maps(model: PreTrainedModel, block: str) -> list[nn.Linear | Conv1D]:
    """The linear maps that read the attention's input; none where a family names them otherwise."""
    return [
        module
        for path, module in model.get_submodule(block).named_modules()
        if path.rpartition(".")[2] in MAPS and isinstance(module, nn.Linear | Conv1D)
    ]


def difference_at_input(model: PreTrainedModel, block: str, *words: list[int]) -> Tensor | None:
    """What the last token of the first of two words brings to a block's attention minus what that
    of the second does, fp32 [hidden]; None where no known map reads it."""
    maps, inputs = attention_maps(model, block), list[Tensor]()
    if not maps:
        return None
    hook = maps[0].register_forward_pre_hook(lambda _, args: inputs.append(args[0][0, -1].float()))
    with hook, torch.no_grad():
        for ids in words:
            model(torch.tensor([ids], device=model.device), use_cache=False)
    return inputs[0] - inputs[1]
