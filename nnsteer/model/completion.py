"""Answers: new tokens as texts, and the verdicts that went with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from nnsteer.model.lower import distinct_conditions
from nnsteer.program.program import Program
from nnsteer.program.show import shortened, table

T = TypeVar("T")


@dataclass(frozen=True)
class Completion:
    """One generated answer. `scores` and `fired` have an entry per distinct condition of the row's
    program."""

    text: str
    ids: tuple[int, ...]
    """The generated tokens, without the end token."""
    ended: bool
    """Whether the model ended the answer itself."""
    scores: tuple[float, ...]
    fired: tuple[bool, ...]
    prompt: str
    """What was asked."""


class Completions(list[Completion]):
    """Answers in the order of their prompts; in a notebook, a table."""

    def _repr_html_(self) -> str:
        columns = ("prompt", "answer", "score", "fired")
        return table(f"Completions: {len(self)}", columns, map(html_row, self))


def html_row(answer: Completion) -> tuple[str, str, str, str]:
    """An answer's cells, with what each condition of its program said."""
    scores = ", ".join(f"{score:.4g}" for score in answer.scores)
    fired = ", ".join("yes" if fired else "no" for fired in answer.fired)
    return shortened(answer.prompt), answer.text, scores, fired


def completions(
    ids: Tensor,
    scores: Sequence[Tensor],
    programs: Sequence[Program],
    prompts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    ends: set[int],
) -> list[Completion]:
    """Texts and verdicts from new tokens [row, token] and scores [row] of each distinct condition
    of the batch; `ends` are the tokens that end an answer."""
    by_condition = dict(zip(distinct_conditions(programs), scores, strict=True))
    answers = []
    for row, (tokens, program) in enumerate(zip(ids.tolist(), programs, strict=True)):
        end = next((k for k, token in enumerate(tokens) if token in ends), None)
        of_row = set(program.conditions)
        conditions = [condition for condition in by_condition if condition in of_row]
        row_scores = tuple(by_condition[condition][row].item() for condition in conditions)
        fired = tuple(c.holds(score) for c, score in zip(conditions, row_scores, strict=True))
        text = tokenizer.decode(tokens[:end], skip_special_tokens=True)
        new = tuple(tokens[:end])
        answers.append(Completion(text, new, end is not None, row_scores, fired, prompts[row]))
    return answers


def end_ids(model: PreTrainedModel) -> set[int]:
    eos = (model.generation_config or model.config).eos_token_id
    return set(eos) if isinstance(eos, list) else {eos}


def by_row(values: Mapping[int, T]) -> list[T]:
    """What each row has, in the order of the rows' numbers."""
    return [values[row] for row in range(len(values))]
