"""Answers: new tokens as texts, and the verdicts that went with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from nnsteer.model.lower import distinct_conditions
from nnsteer.program.program import Program

T = TypeVar("T")


@dataclass(frozen=True)
class Completion:
    """One generated answer. `scores` and `fired` have an entry per distinct condition of the row's program."""

    text: str
    ids: tuple[int, ...]
    """The generated tokens, without the end token."""
    ended: bool
    """Whether the model ended the answer itself."""
    scores: tuple[float, ...]
    fired: tuple[bool, ...]
    prompt: str
    """What was asked."""


def completions(
    ids: Tensor,
    scores: list[Tensor],
    programs: Sequence[Program],
    prompts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    ends: set[int],
) -> list[Completion]:
    """Texts and verdicts from new tokens [row, token] and scores [row] of each distinct condition of
    the batch; `ends` are the tokens that end an answer."""
    conditions = distinct_conditions(programs)
    out = []
    for i, (row, program, prompt) in enumerate(zip(ids.tolist(), programs, prompts, strict=True)):
        end = next((k for k, token in enumerate(row) if token in ends), None)
        of_row = distinct_conditions([program])
        numbers = [k for k, condition in enumerate(conditions) if condition in of_row]
        row_scores = tuple(scores[k][i].item() for k in numbers)
        fired = tuple(conditions[k].holds(s) for k, s in zip(numbers, row_scores, strict=True))
        text = tokenizer.decode(row[:end], skip_special_tokens=True)
        out.append(Completion(text, tuple(row[:end]), end is not None, row_scores, fired, prompt))
    return out


def end_ids(model: PreTrainedModel) -> set[int]:
    """The tokens that end an answer."""
    eos = model.generation_config.eos_token_id if model.generation_config else model.config.eos_token_id
    return set(eos) if isinstance(eos, list) else {eos}


def by_row(found: dict[int, T]) -> list[T]:
    """What was found for each row, in the order of the rows' numbers."""
    return [found[i] for i in range(len(found))]
