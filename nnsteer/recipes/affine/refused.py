"""What the model refuses by itself, by the token it would begin with (Arditi et al. 2024, *Refusal
in Language Models Is Mediated by a Single Direction*)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.model.chat import Chat
from nnsteer.model.runner import NOTHING, Programs, Runner
from nnsteer.texts.contrast import ContrastSet
from nnsteer.texts.refusal import Requests

LEAST = 4  # texts a side, for a mean


def as_expected(
    folder: Folder, runner: Runner, texts: ContrastSet, tokens: Sequence[int]
) -> ContrastSet:
    """The harmful prompts that the model refuses and as many harmless ones that it does not, by the
    sign of their refusal scores, which are kept in refused.json. Raises UserError where there are
    too few."""
    if not folder.has("refused.json"):
        scores = {}
        for name, side in (("positive", texts.positive), ("negative", texts.negative)):
            logs = next_logs(runner, [text.prompt for text in side])
            scores[name] = refusal_scores(logs, tokens).tolist()
        folder.write_json("refused.json", scores)
    scores = folder.read_json("refused.json")
    harmful = zip(texts.positive, scores["positive"], strict=True)
    harmless = zip(texts.negative, scores["negative"], strict=True)
    positive = tuple(text for text, score in harmful if score > 0)
    negative = tuple(text for text, score in harmless if score < 0)
    n = min(len(positive), len(negative))
    if n < LEAST:
        raise UserError(
            f"--contrast refused: the model refuses {len(positive)} of {len(texts.positive)} "
            f"harmful fit prompts and answers {len(negative)} of {len(texts.negative)} harmless "
            "ones, too few to fit on; give more, or --contrast prompts"
        )
    return ContrastSet(positive[:n], negative[:n])


def refusal_tokens(chat: Chat, requests: Requests) -> list[int]:
    """The tokens with which a larger share of refusal openers begins than of compliance openers."""
    refusals = Counter(chat.response_ids(opener)[0] for opener in requests.refusals)
    compliances = Counter(chat.response_ids(opener)[0] for opener in requests.compliances)
    n, others = refusals.total(), compliances.total()
    return sorted(token for token in refusals if refusals[token] / n > compliances[token] / others)


def next_logs(runner: Runner, prompts: Sequence[str], steered: Programs = NOTHING) -> Tensor:
    """Log probabilities of the token after each prompt, fp64 [prompt, vocab]."""
    return torch.stack([row[0] for row in runner.logits(prompts, steered)]).double().log_softmax(-1)


def refusal_scores(logs: Tensor, tokens: Sequence[int]) -> Tensor:
    """log p - log (1 - p) of the tokens' total probability, [prompt]."""
    others = torch.ones(logs.shape[-1], dtype=torch.bool)
    others[list(tokens)] = False
    return logs[:, ~others].logsumexp(-1) - logs[:, others].logsumexp(-1)
