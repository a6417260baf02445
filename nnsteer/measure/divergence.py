"""How far steering takes a model from itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nnsteer.kernels import logits
from nnsteer.measure import coherence
from nnsteer.measure.kinds import Answer, ModelMeasure, ReadingMeasure
from nnsteer.model.runner import Runner
from nnsteer.program.program import Program
from nnsteer.texts.contrast import Text
from nnsteer.texts.source import Prompt

MAX_DRIFT = 3.0  # nats
NOTHING = Program()


def kl() -> ModelMeasure:
    """KL(steered || unsteered) of the distribution of the answer's first token, in nats. A program
    that only edits the tokens after the prompt has 0."""

    def values(
        runner: Runner, programs: Sequence[Program], prompts: Sequence[Prompt]
    ) -> list[float]:
        found = []
        for start in range(0, len(prompts), runner.batch_size):
            chosen = slice(start, start + runner.batch_size)
            found += divergences(
                runner, programs[chosen], [prompt.text for prompt in prompts[chosen]]
            )
        return found

    return ModelMeasure("kl", "first token, nats", False, values, unsteered_too=True)


def divergences(runner: Runner, programs: Sequence[Program], texts: Sequence[str]) -> list[float]:
    """KL of each text under its program. Each text that is there several times rides along
    unsteered once, in the same batch, so that a program that does nothing has exactly 0."""
    plain = list(dict.fromkeys(texts))
    whole = runner.with_batch_size(len(plain) + len(texts))
    own = [*[NOTHING] * len(plain), *programs]
    ((batch, programs, numbers),) = whole.batches(
        whole.chat.rows([Text(text) for text in (*plain, *texts)]), own
    )
    twins = [*range(len(plain)), *map(plain.index, texts)]
    others = torch.tensor([numbers.index(twins[i]) for i in numbers])
    found = whole.reduce_logits(batch, programs, 1, logits.divergences, others).tolist()
    return [found[numbers.index(i)] for i in range(len(plain), len(own))]


def drift() -> ReadingMeasure:
    """The median loss of an answer's tokens under the unsteered model, in nats
    (`coherence.drift`)."""

    def values(runner: Runner, answers: Sequence[Answer]) -> list[float]:
        losses = runner.losses(
            [answer.prompt.text for answer in answers], [answer.ids for answer in answers]
        )
        return [coherence.drift(loss) for loss in losses]

    return ReadingMeasure("drift", "nats of the unsteered model", False, values)


def broken(max_drift: float = MAX_DRIFT) -> ReadingMeasure:
    """1 for an answer that is empty, goes round in circles or drifts further than `max_drift` nats
    (`coherence.broken`)."""

    def values(runner: Runner, answers: Sequence[Answer]) -> list[float]:
        losses = runner.losses(
            [answer.prompt.text for answer in answers], [answer.ids for answer in answers]
        )
        return [
            float(coherence.broken(a.text, loss, max_drift))
            for a, loss in zip(answers, losses, strict=True)
        ]

    return ReadingMeasure(
        "broken",
        f"empty, circling, or beyond {max_drift} nats of the unsteered model",
        True,
        values,
    )
