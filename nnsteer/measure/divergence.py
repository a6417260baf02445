"""How far steering takes a model from itself."""

from __future__ import annotations

from collections.abc import Sequence

from torch.nn.functional import kl_div

from nnsteer.measure import coherence
from nnsteer.measure.kinds import Answer, OfAnswers, OfModel
from nnsteer.program import Program
from nnsteer.prompts import Prompt
from nnsteer.runner import Runner

MAX_DRIFT = 3.0  # nats


def kl() -> OfModel:
    """KL(steered || unsteered) of the distribution of the answer's first token, in nats. A program that only edits the tokens
    after the prompt has 0."""

    def values(runner: Runner, programs: Sequence[Program], prompts: Sequence[Prompt]) -> list[float]:
        texts = [prompt.text for prompt in prompts]
        # the same batches twice, so that a program that does nothing has exactly 0
        both = zip(runner.logits(texts, programs), runner.logits(texts), strict=True)
        logs = [(steered[0].double().log_softmax(-1), plain[0].double().log_softmax(-1)) for steered, plain in both]
        return [kl_div(plain, steered, log_target=True, reduction="sum").item() for steered, plain in logs]

    return OfModel("kl", "first token, nats", False, values)


def drift(runner: Runner) -> OfAnswers:
    """The median loss of an answer's tokens under the unsteered model, in nats (`coherence.drift`)."""

    def values(answers: Sequence[Answer]) -> list[float]:
        losses = runner.losses([answer.prompt.text for answer in answers], [answer.ids for answer in answers])
        return [coherence.drift(loss) for loss in losses]

    return OfAnswers("drift", f"nats of {runner.model.name}, weights {runner.model.weights}", False, values)


def broken(runner: Runner, max_drift: float = MAX_DRIFT) -> OfAnswers:
    """1 for an answer that is empty, goes round in circles or drifts further than `max_drift` nats (`coherence.broken`)."""

    def values(answers: Sequence[Answer]) -> list[float]:
        losses = runner.losses([answer.prompt.text for answer in answers], [answer.ids for answer in answers])
        return [float(coherence.broken(a.text, loss, max_drift)) for a, loss in zip(answers, losses, strict=True)]

    return OfAnswers("broken", f"beyond {max_drift} nats of {runner.model.name}, weights {runner.model.weights}", True, values)
