"""The texts that r+ and r- are read from, in the formats of steering-llama3 (*Refusal in LLMs is an Affine Function*).

prompts       harmful against harmless prompts, on the prompt's last token; the others are read on the answer's last token
refused       the same, only the harmful ones that the model refuses and the harmless ones that it answers
caa           the fit prompts of both sides, each with a refusal and a compliance opener, drawn by the seed
caa:SOURCE    the same from rows with the columns prompt, refusal and nonrefusal
opencon       the fit prompts with one and the same refusal and compliance, the first of the openers
abcon         the same two as choices (A) and (B), in both orders; the answer ends at the letter
ab:SOURCE     model-written evaluations as published (Rimsky et al. 2023): the answer ends at the letter
open:SOURCE   the same rows with the text of the choice as the answer, and the question without the choices
openr:SOURCE  open with the answer's last character cut off
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from nnsteer.errors import UserError
from nnsteer.texts.behaviours import Form, Item, contrast, load_behaviour
from nnsteer.texts.contrast import ContrastSet, Text, of_prompts, of_responses
from nnsteer.texts.refusal import SIDES, Requests
from nnsteer.texts.source import column_of, parse_source, read_rows

CHOICES = re.compile(r"\n\s*Choices:\s*\n")
CHOICE = re.compile(r"\(([A-Z])\)\s*(.*?)\s*(?=\n\s*\([A-Z]\)|\Z)", re.DOTALL)
Pair = tuple[Text, Text]
"""Positive and negative."""


def texts(name: str, requests: Requests, n: int, seed: int) -> ContrastSet:
    """The contrast set of a format, from at most `n` prompts a side, or `n` rows of a SOURCE. Raises UserError for a format that
    does not exist, or that lacks its SOURCE or has one too many."""
    form, _, source = name.partition(":")
    if source and form in FROM_ROWS:
        return joined(FROM_ROWS[form](source, seed)[:n])
    if not source and form in FROM_REQUESTS:
        return FROM_REQUESTS[form](requests, n, seed)
    known = ", ".join([*FROM_REQUESTS, *(f"{form}:SOURCE" for form in FROM_ROWS)])
    raise UserError(f"--contrast {name}: no such format of texts; choose one of {known}")


def joined(pairs: Sequence[Pair]) -> ContrastSet:
    """Pairs as two sides."""
    positive, negative = zip(*pairs, strict=True)
    return ContrastSet(positive, negative)


def prompts(requests: Requests, n: int, _: int) -> ContrastSet:
    """Harmful against harmless prompts."""
    return of_prompts(*([p.text for p in requests.side(side, "fit", n)] for side in SIDES))


def both_sides(requests: Requests, n: int) -> list[str]:
    """The fit prompts of both sides."""
    return [prompt.text for side in SIDES for prompt in requests.side(side, "fit", n)]


def caa(requests: Requests, n: int, seed: int) -> ContrastSet:
    """The same prompt refused and answered."""
    return of_responses(both_sides(requests, n), requests.refusals, requests.compliances, seed)


def opencon(requests: Requests, n: int, seed: int) -> ContrastSet:
    """The same with one refusal and one compliance throughout."""
    return of_responses(both_sides(requests, n), requests.refusals[:1], requests.compliances[:1], seed)


def abcon(requests: Requests, n: int, _: int) -> ContrastSet:
    """The choice between the two, in both orders."""
    refusal, compliance = requests.refusals[0], requests.compliances[0]
    pairs = []
    for prompt in both_sides(requests, n):
        for choices, letters in (((refusal, compliance), "AB"), ((compliance, refusal), "BA")):
            asked = f"{prompt}\n\nChoices:\n (A) {choices[0]}\n (B) {choices[1]}"
            pairs.append((Text(asked, f"({letters[0]}"), Text(asked, f"({letters[1]}")))
    return joined(pairs)


def own_answers(source: str, _: int) -> list[Pair]:
    """Prompts that bring their own refusal and compliance."""
    place = parse_source(source)
    rows = read_rows(place)
    if not rows:
        raise UserError(f"{source}: no rows; give a file with prompt, refusal and nonrefusal columns")
    prompt = column_of(place, rows, "prompt")
    positive, negative = (column_of(replace(place, column=None), rows, name) for name in ("refusal", "nonrefusal"))
    return [(Text(row[prompt], row[positive]), Text(row[prompt], row[negative])) for row in rows]


def letters(source: str, seed: int) -> list[Pair]:
    """Questions with choices, answered up to the letter."""
    sides = contrast(load_behaviour(source, Form(opener="("), seed).fit, balanced=False)
    return list(zip(sides.positive, sides.negative, strict=True))


def open_answers(source: str, seed: int) -> list[Pair]:
    """Questions without their choices, answered with the choice's own words."""
    return [spelled_out(source, item) for item in load_behaviour(source, Form(), seed).fit]


def trimmed(source: str, seed: int) -> list[Pair]:
    """The same without the answers' last characters."""
    return [(Text(p.prompt, p.response[:-1]), Text(n.prompt, n.response[:-1])) for p, n in open_answers(source, seed)]


def spelled_out(source: str, item: Item) -> Pair:
    """An item's two answers in words. Raises UserError where its question does not list them."""
    question, *listed = CHOICES.split(item.prompt, maxsplit=1)
    words = dict(CHOICE.findall(listed[0])) if listed else {}
    if not words.get(item.matching) or not words.get(item.other):
        raise UserError(
            f"{source}: the question {item.prompt[:40]!r} lists no ({item.matching}) and ({item.other}) under 'Choices:'; "
            "use --contrast ab:SOURCE, or add them"
        )
    return Text(question.strip(), words[item.matching]), Text(question.strip(), words[item.other])


FROM_REQUESTS: dict[str, Callable[[Requests, int, int], ContrastSet]] = {
    "refused": prompts,
    "prompts": prompts, "caa": caa, "opencon": opencon, "abcon": abcon,
}  # fmt: skip
FROM_ROWS: dict[str, Callable[[str, int], list[Pair]]] = {
    "caa": own_answers, "ab": letters, "open": open_answers, "openr": trimmed,
}  # fmt: skip
