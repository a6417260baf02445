"""What callers hand to a runner, checked before any pass: each mistake is one line."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from transformers import PreTrainedTokenizerBase

from nnsteer.errors import UserError
from nnsteer.model.chat import Chat
from nnsteer.program.program import Program
from nnsteer.texts.contrast import ContrastSet


def as_program(given: Any) -> Program:
    """A program. Raises UserError for anything else."""
    if not isinstance(given, Program):
        raise UserError(f"program: got a {type(given).__name__}; expected a Program; make one with add(...), say")
    return given


def as_programs(given: Program | Sequence[Program], rows: int) -> list[Program]:
    """A program for each of so many rows, from one for all or one for each."""
    if isinstance(given, Program):
        return [given] * rows
    if not isinstance(given, list | tuple):
        return [as_program(given)] * rows
    if len(given) != rows:
        raise UserError(f"{rows} prompts but {len(given)} programs: give one program, or one for each prompt")
    return [as_program(program) for program in given]


def as_contrast(given: Any) -> ContrastSet:
    """A contrast set. Raises UserError for anything else."""
    if not isinstance(given, ContrastSet):
        raise UserError(
            f"contrast: got a {type(given).__name__}; expected a ContrastSet; make one with of_prompts(positive, negative)"
        )
    return given


def as_chat(given: Chat | PreTrainedTokenizerBase) -> Chat:
    """How prompts become tokens. A tokenizer's chat template is used where it has one; without one a
    prompt is plain text. Raises UserError for anything else."""
    if isinstance(given, Chat):
        return given
    if not isinstance(given, PreTrainedTokenizerBase):
        raise UserError(f"chat: got a {type(given).__name__}; expected a tokenizer or a Chat; give the model's tokenizer")
    return Chat(given, templated=given.chat_template is not None)


def check_generation(max_new_tokens: int, temperature: float) -> None:
    """Raises UserError for numbers that no generation can have."""
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise UserError(f"max_new_tokens {max_new_tokens}: must be a whole number of at least 1")
    if not (isfinite(temperature) and temperature >= 0):
        raise UserError(f"temperature {temperature}: must be 0 (greedy) or a finite number above it")
