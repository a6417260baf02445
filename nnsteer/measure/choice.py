"""A/B questions: which of two answers the model chooses, by its logits or by the letter that it writes.

Each prompt has a pair: the answer that shows the behaviour (`matching`) and the other one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from nnsteer.errors import UserError
from nnsteer.kernels.logits import choices
from nnsteer.measure.kinds import Answer, OfAnswers, OfModel, fingerprint
from nnsteer.model.chat import Chat
from nnsteer.model.completion import by_row
from nnsteer.model.runner import Runner
from nnsteer.program.program import Program
from nnsteer.texts.contrast import Text
from nnsteer.texts.source import Prompt, column_of, parse_source, read_rows

Pair = tuple[str, str]
Pairs = Mapping[str, Pair]
"""(matching, other) by the prompt's text."""
COLLAPSE = 0.95  # the share of one answer beyond which the model is no longer choosing
AROUND = " \t\n(\"'*"  # what may stand before the letter


class Reply(NamedTuple):
    """What the model would write where two answers part."""

    chosen: str | None
    """The one of the two whose token comes first of all; None where it is another token."""
    token: str
    """The most likely token's text."""
    margin: float
    """The first answer's logit minus the second's."""


@dataclass(frozen=True)
class Tally:
    """How many answers there are, how many match, how many are neither of the two, and how many are the commonest one."""

    total: int
    matching: int
    faulty: int
    commonest: int

    @property
    def score(self) -> float:
        """The matching score, matches over all answers, faulty ones included (van der Weij et al. 2024, arXiv 2403.05767)."""
        return self.matching / self.total

    @property
    def collapsed(self) -> bool:
        """Whether more than 95 % of the answers are the same one, whatever was asked."""
        return self.commonest > COLLAPSE * self.total


def tally(pairs: Pairs, answers: Sequence[Answer]) -> Tally:
    """Counts generated letters."""
    if not answers:
        raise UserError("no answers to count: give at least one")
    given = [letter(answer.text, pair_of(pairs, answer.prompt)) for answer in answers]
    matches = sum(chosen == pair_of(pairs, answer.prompt)[0] for chosen, answer in zip(given, answers, strict=True))
    counts = Counter(chosen for chosen in given if chosen is not None)
    return Tally(len(given), matches, given.count(None), max(counts.values(), default=0))


def matching(pairs: Pairs) -> OfAnswers:
    """1 for an answer that begins with the matching letter; its mean is the matching score. Meant for answers of a token or two:
    of a sentence, the article A would be a letter."""

    def values(answers: Sequence[Answer]) -> list[float]:
        return [float(tally(pairs, [answer]).matching) for answer in answers]

    return OfAnswers("matching", f"pairs {named_by(pairs)}", True, values)


def faulty(pairs: Pairs) -> OfAnswers:
    """1 for an answer that begins with neither letter."""

    def values(answers: Sequence[Answer]) -> list[float]:
        return [float(tally(pairs, [answer]).faulty) for answer in answers]

    return OfAnswers("faulty", f"pairs {named_by(pairs)}", True, values)


def margin(pairs: Pairs) -> OfModel:
    """The logit of the matching answer's token minus that of the other's, where the two first differ."""

    def values(runner: Runner, programs: Sequence[Program], prompts: Sequence[Prompt]) -> list[float]:
        return margins(pairs, runner, programs, prompts)

    return OfModel("margin", f"pairs {named_by(pairs)}", False, values)


def chooses(pairs: Pairs) -> OfModel:
    """1 where the matching answer's token has the higher logit of the two."""

    def values(runner: Runner, programs: Sequence[Program], prompts: Sequence[Prompt]) -> list[float]:
        return [float(difference > 0) for difference in margins(pairs, runner, programs, prompts)]

    return OfModel("chooses", f"pairs {named_by(pairs)}", True, values)


def margins(pairs: Pairs, runner: Runner, programs: Sequence[Program], prompts: Sequence[Prompt]) -> list[float]:
    """Differences of logits after the prompt and what the two answers share."""
    own = [pair_of(pairs, prompt) for prompt in prompts]
    return [reply.margin for reply in replies(runner, [prompt.text for prompt in prompts], own, programs)]


def replies(runner: Runner, prompts: Sequence[str], pairs: Sequence[Pair], programs: Sequence[Program]) -> list[Reply]:
    """One greedy token after each prompt and what its two answers share."""
    places = [parting(runner.chat, pair) for pair in pairs]
    whole = runner.chat.rows([Text(prompt, first) for prompt, (first, _) in zip(prompts, pairs, strict=True)])
    rows = [(own, answer[:at]) for (own, answer), (at, *_) in zip(whole, places, strict=True)]
    asked = torch.tensor([both for _, *both in places])
    found = {}
    for batch, own, numbers in runner.batches(rows, programs):
        taken = runner.taken(batch, own, 1, choices, asked[numbers])
        for i, top, (first, second) in zip(numbers, taken["top"].tolist(), taken["asked"].tolist(), strict=True):
            _, *both = places[i]
            chosen = pairs[i][both.index(top)] if top in both else None
            found[i] = Reply(chosen, runner.chat.tokenizer.decode([top]), first - second)
    return by_row(found)


def parting(chat: Chat, pair: Pair) -> tuple[int, int, int]:
    """How many tokens the two answers share, and the first token of each after those."""
    first, second = (chat.response_ids(text) for text in pair)
    for at, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return at, a, b
    raise UserError(f"answers {pair[0]!r} and {pair[1]!r}: one begins with the other; give two whose tokens differ")


def letter(text: str, pair: Pair) -> str | None:
    """The one of the two with which the text begins, as a whole word; None for neither."""
    start = text.lstrip(AROUND)
    for option in pair:
        word = option.strip(f"{AROUND})")
        if start.startswith(word) and not start[len(word) : len(word) + 1].isalnum():
            return option
    return None


def pair_of(pairs: Pairs, prompt: Prompt) -> Pair:
    """The prompt's two answers."""
    if prompt.text not in pairs:
        raise UserError(f"prompt {prompt.text[:60]!r}: no pair of answers for it; give the file that the prompts come from")
    return pairs[prompt.text]


def named_by(pairs: Pairs) -> str:
    """The pairs' fingerprint."""
    return fingerprint(sorted((prompt, *pair) for prompt, pair in pairs.items()))


def load_pairs(text: str) -> dict[str, Pair]:
    """The pairs of a SOURCE (`texts.source`) with the columns `prompt`, `matching` and `other`."""
    source = parse_source(text)
    rows = read_rows(source)
    column = column_of(source, rows, "prompt")
    first, second = (column_of(replace(source, column=None), rows, name) for name in ("matching", "other"))
    return {row[column].strip(): (row[first], row[second]) for row in rows}
