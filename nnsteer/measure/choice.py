"""A/B questions: which of two answers the model chooses, by its logits or by the letter that it
writes. A pair is the answer that shows the behaviour (`matching`) and the other one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from nnsteer.errors import UserError
from nnsteer.measure.kinds import Answer, AnswerMeasure, ModelMeasure, Value, fingerprint
from nnsteer.measure.replies import Pair, Reply, replies
from nnsteer.model.runner import Runner
from nnsteer.program.program import Program
from nnsteer.texts.behaviours import Item
from nnsteer.texts.source import Prompt, column_of, parse_source, read_rows

Programs = Sequence[Program]
Prompts = Sequence[Prompt]
Pairs = Mapping[str, Pair]
"""(matching, other) by the prompt's text."""
COLLAPSE = 0.95  # the share of one answer beyond which the model is no longer choosing
AROUND = " \t\n(\"'*"  # what may stand before the letter


@dataclass(frozen=True)
class Tally:
    """How many answers there are, how many match, how many are neither of the two, and how many are
    the commonest one."""

    total: int
    matching: int
    faulty: int
    commonest: int

    @property
    def score(self) -> float:
        """The matching score, matches over all answers, faulty ones included (van der Weij et al.
        2024, arXiv 2403.05767)."""
        return self.matching / self.total

    @property
    def collapsed(self) -> bool:
        """Whether more than 95 % of the answers are the same one, whatever was asked."""
        return self.commonest > COLLAPSE * self.total


def choice(items: Sequence[Item]) -> ModelMeasure:
    """One greedy token after each item's opener: what was `said` (the item's `matching` or `other`
    word, or another token's text, a faulty answer), and the `margin` of the matching word's logit
    over the other's."""
    item_of = {item.prompt: item for item in items}

    def values(runner: Runner, programs: Programs, prompts: Prompts) -> list[Value]:
        asked = [item_of[prompt.text] for prompt in prompts]
        given = replies(runner, prompts, [item.responses for item in asked], programs)
        return [said_and_meant(item, reply) for item, reply in zip(asked, given, strict=True)]

    return ModelMeasure("choice", f"items {fingerprint(list(items))}", False, values)


def said_and_meant(item: Item, reply: Reply) -> Value:
    """A value of `choice`."""
    said = reply.chosen.removeprefix(item.opener) if reply.chosen else reply.token
    words = {"matching": item.matching, "other": item.other}
    return {"said": said, **words, "margin": reply.margin}


def counted(values: Sequence[Mapping]) -> Tally:
    """Counts values of `choice`."""
    valid = [v["said"] for v in values if v["said"] in (v["matching"], v["other"])]
    matches = sum(v["said"] == v["matching"] for v in values)
    commonest = max(Counter(valid).values(), default=0)
    return Tally(len(values), matches, len(values) - len(valid), commonest)


def tally(pairs: Pairs, answers: Sequence[Answer]) -> Tally:
    """Counts generated letters."""
    if not answers:
        raise UserError("no answers to count: give at least one")
    both = [pair_of(pairs, answer.prompt) for answer in answers]
    letters = [letter(answer.text, pair) for answer, pair in zip(answers, both, strict=True)]
    given = zip(letters, both, strict=True)
    return counted([{"said": said, "matching": a, "other": b} for said, (a, b) in given])


def matching(pairs: Pairs) -> AnswerMeasure:
    """1 for an answer that begins with the matching letter; its mean is the matching score. Meant
    for answers of a token or two: of a sentence, the article A would be a letter."""
    values = lambda answers: [float(tally(pairs, [a]).matching) for a in answers]  # noqa: E731
    return AnswerMeasure("matching", named_by(pairs), True, values)


def faulty(pairs: Pairs) -> AnswerMeasure:
    """1 for an answer that begins with neither letter."""
    values = lambda answers: [float(tally(pairs, [a]).faulty) for a in answers]  # noqa: E731
    return AnswerMeasure("faulty", named_by(pairs), True, values)


def margin(pairs: Pairs) -> ModelMeasure:
    """The matching answer's logit minus the other's, of the tokens in which they first differ."""
    return ModelMeasure("margin", named_by(pairs), False, partial(margins, pairs))


def chooses(pairs: Pairs) -> ModelMeasure:
    """1 where the matching answer's token has the higher logit of the two."""

    def values(runner: Runner, programs: Programs, prompts: Prompts) -> list[float]:
        return [float(difference > 0) for difference in margins(pairs, runner, programs, prompts)]

    return ModelMeasure("chooses", named_by(pairs), True, values)


def margins(pairs: Pairs, runner: Runner, programs: Programs, prompts: Prompts) -> list[float]:
    """Differences of logits after the prompt and what the two answers share."""
    both = [pair_of(pairs, prompt) for prompt in prompts]
    return [reply.margin for reply in replies(runner, prompts, both, programs)]


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
        raise UserError(
            f"prompt {prompt.text[:60]!r}: no pair of answers for it; "
            "give the file that the prompts come from"
        )
    return pairs[prompt.text]


def named_by(pairs: Pairs) -> str:
    """The pairs' fingerprint."""
    return f"pairs {fingerprint(sorted((prompt, *pair) for prompt, pair in pairs.items()))}"


def load_pairs(text: str) -> dict[str, Pair]:
    """The pairs of a SOURCE (`texts.source`) with the columns `prompt`, `matching` and `other`."""
    source = parse_source(text)
    rows = read_rows(source)
    column = column_of(source, rows, "prompt")
    plain = replace(source, column=None)
    first, second = (column_of(plain, rows, name) for name in ("matching", "other"))
    return {row[column].strip(): (row[first], row[second]) for row in rows}
