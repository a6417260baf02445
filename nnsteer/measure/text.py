"""What can be told from an answer's tokens alone."""

from __future__ import annotations

from collections.abc import Sequence

from nnsteer.errors import UserError
from nnsteer.measure.coherence import distinct_share
from nnsteer.measure.kinds import Answer, AnswerMeasure


def distinct(n: int) -> AnswerMeasure:
    """The share of distinct n-grams among an answer's tokens, from near 0 (going round in circles)
    to 1 (nothing is repeated, or fewer than `n` tokens). Distinct-n of Li et al. 2016 for a single
    answer; 1 minus seq-rep-n of Welleck et al. 2020."""
    if n < 1:
        raise UserError(f"distinct {n}-grams: n must be at least 1")

    def values(answers: Sequence[Answer]) -> list[float]:
        return [distinct_share(answer.ids, n) for answer in answers]

    return AnswerMeasure(f"distinct-{n}", "of tokens", False, values)


def length() -> AnswerMeasure:
    """The number of tokens of an answer, without the end token."""

    def values(answers: Sequence[Answer]) -> list[float]:
        return [float(len(answer.ids)) for answer in answers]

    return AnswerMeasure("length", "in tokens", False, values)
