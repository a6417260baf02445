"""What callers hand to a runner, checked before any pass: each mistake is one line."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from transformers import PreTrainedTokenizerBase

from nnsteer.errors import UserError
from nnsteer.model.chat import Chat
from nnsteer.program.program import Program
from nnsteer.texts.contrast import ContrastSet, as_texts


def unexpected(name: str, given: Any, expected: str) -> UserError:
    """The error for something of another type."""
    return UserError(f"{name}: got a {type(given).__name__}; expected {expected}")


def as_program(given: Any) -> Program:
    """A program. Raises UserError for anything else."""
    if not isinstance(given, Program):
        raise unexpected("program", given, "a Program; make one with add(...), say")
    return given


def as_programs(given: Program | Sequence[Program], rows: int) -> list[Program]:
    """A program for each of so many rows, from one for all or one for each."""
    if not isinstance(given, list | tuple):
        return [as_program(given)] * rows
    if len(given) != rows:
        raise UserError(
            f"{rows} prompts but {len(given)} programs: give one program, or one for each prompt"
        )
    return [as_program(program) for program in given]


def as_contrast(given: Any) -> ContrastSet:
    """A contrast set. Raises UserError for anything else."""
    if not isinstance(given, ContrastSet):
        expected = "a ContrastSet; make one with of_prompts(positive, negative)"
        raise unexpected("contrast", given, expected)
    return given


def as_chat(given: Any) -> Chat:
    """How prompts become tokens. A tokenizer's chat template is used where it has one; without one
    a prompt is plain text. Raises UserError for anything else."""
    if isinstance(given, Chat):
        return given
    if not isinstance(given, PreTrainedTokenizerBase):
        raise unexpected("chat", given, "a tokenizer or a Chat; give the model's tokenizer")
    return Chat(given, templated=given.chat_template is not None)


def as_prompts(name: str, given: Any) -> list[str]:
    """Texts in a list. Raises UserError for anything else, and for none."""
    if not (prompts := as_texts(name, given)):
        raise UserError(f"{name}: no prompts; give at least one")
    return prompts


def as_row_ids(given: Sequence[int] | None, rows: int) -> list[int]:
    """The numbers by which rows' samples are drawn: the rows' own where none are given. Raises
    UserError unless there is a whole number for each row."""
    if given is None:
        return list(range(rows))
    check_one_each("row_ids", given, rows)
    for row_id in given:
        if not isinstance(row_id, int):
            raise unexpected("row_ids", row_id, "whole numbers; give one for each prompt")
    return list(given)


def check_one_each(name: str, given: Sequence, rows: int) -> None:
    """Raises UserError unless there are as many as prompts."""
    if len(given) != rows:
        raise UserError(f"{rows} prompts but {len(given)} {name}: give one for each prompt")


def check_generation(max_new_tokens: int, temperature: float) -> None:
    """Raises UserError for numbers that no generation can have."""
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise UserError(f"max_new_tokens {max_new_tokens}: must be a whole number of at least 1")
    if not (isfinite(temperature) and temperature >= 0):
        raise UserError(
            f"temperature {temperature}: must be 0 (greedy) or a finite number above it"
        )
