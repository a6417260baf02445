"""The texts that r+ and r- are read from, in the formats of steering-llama3 (*Refusal in LLMs is an
Affine Function*).

prompts       harmful against harmless prompts, on the prompt's last token; the others are read on
              the answer's last token
refused       the same, only the harmful ones that the model refuses and the harmless ones that it
              answers
caa           the fit prompts of both sides, each with a refusal and a compliance drawn by the seed
caa:SOURCE    the same from rows with the columns prompt, refusal and nonrefusal
opencon       the fit prompts with one and the same refusal and compliance, the first of the openers
abcon         the same two as choices (A) and (B), in both orders; the answer ends at the letter
ab:SOURCE     model-written evaluations as published (Rimsky et al. 2023), up to the letter
open:SOURCE   the same rows with the text of the choice as the answer, and no choices listed
openr:SOURCE  open with the answer's last character cut off
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from nnsteer.errors import UserError
from nnsteer.texts.behaviours import Form, Item, contrast, load_behaviour
from nnsteer.texts.contrast import ContrastSet, Text, of_responses
from nnsteer.texts.refusal import Requests
from nnsteer.texts.source import column_of, parse_source, read_rows

FORMATS = "refused, prompts, caa, opencon, abcon, caa:SOURCE, ab:SOURCE, open:SOURCE, openr:SOURCE"
CHOICES = re.compile(r"\n\s*Choices:\s*\n")
CHOICE = re.compile(r"\(([A-Z])\)\s*(.*?)\s*(?=\n\s*\([A-Z]\)|\Z)", re.DOTALL)
Pair = tuple[Text, Text]
"""Positive and negative."""


def contrast_set(name: str, requests: Requests, n: int, seed: int) -> ContrastSet:
    """The contrast set of a format, from at most `n` prompts a side, or `n` rows of a SOURCE.
    Raises UserError for a format that does not exist, or that lacks its SOURCE or has one too
    many."""
    form, _, source = name.partition(":")
    harmful, harmless = requests.both("fit", n)
    prompts, refusals, compliances = harmful + harmless, requests.refusals, requests.compliances
    match form, bool(source):
        case "refused" | "prompts", False:
            return requests.pairs(n)
        case "caa", False:
            return of_responses(prompts, refusals, compliances, seed)
        case "opencon", False:
            return of_responses(prompts, refusals[:1], compliances[:1], seed)
        case "abcon", False:
            return joined(in_both_orders(prompts, refusals[0], compliances[0]))
        case "caa", True:
            return joined(from_columns(source)[:n])
        case "ab", True:
            letters = contrast(items(source, seed), balanced=False)
            return ContrastSet(letters.positive[:n], letters.negative[:n])
        case "open", True:
            return joined(in_words(source, seed)[:n])
        case "openr", True:
            return joined(in_words(source, seed, end=-1)[:n])
    raise UserError(f"--contrast {name}: no such format of texts; choose one of {FORMATS}")


def joined(pairs: Iterable[Pair]) -> ContrastSet:
    """Pairs as two sides."""
    positive, negative = zip(*pairs, strict=True)
    return ContrastSet(positive, negative)


def in_both_orders(prompts: Sequence[str], refusal: str, compliance: str) -> list[Pair]:
    """The choice between the two, for each prompt twice."""
    pairs = []
    for prompt in prompts:
        a = f"{prompt}\n\nChoices:\n (A) {refusal}\n (B) {compliance}"
        b = f"{prompt}\n\nChoices:\n (A) {compliance}\n (B) {refusal}"
        pairs += [(Text(a, "(A"), Text(a, "(B")), (Text(b, "(B"), Text(b, "(A"))]
    return pairs


def from_columns(source: str) -> list[Pair]:
    """Prompts that bring their own refusal and compliance."""
    place = parse_source(source)
    rows = read_rows(place)
    if not rows:
        raise UserError(
            f"{source}: no rows; give a file with prompt, refusal and nonrefusal columns"
        )
    prompt = column_of(place, rows, "prompt")
    place = replace(place, column=None)
    refusal, other = (column_of(place, rows, name) for name in ("refusal", "nonrefusal"))
    return [(Text(row[prompt], row[refusal]), Text(row[prompt], row[other])) for row in rows]


def items(source: str, seed: int) -> tuple[Item, ...]:
    """The fit items of a behaviour."""
    return load_behaviour(source, Form(opener="("), seed).fit


def in_words(source: str, seed: int, end: int | None = None) -> list[Pair]:
    """Questions without their choices, answered with the choice's own words, up to the character
    `end`. Raises UserError where one does not list them."""
    pairs = []
    for item in items(source, seed):
        question, *listed = CHOICES.split(item.prompt, maxsplit=1)
        words = dict(CHOICE.findall(listed[0])) if listed else {}
        if not words.get(item.matching) or not words.get(item.other):
            raise UserError(
                f"{source}: the question {item.prompt[:40]!r} lists no ({item.matching}) and "
                f"({item.other}) under 'Choices:'; use --contrast ab:SOURCE, or add them"
            )
        question, matching, other = question.strip(), words[item.matching], words[item.other]
        pairs.append((Text(question, matching[:end]), Text(question, other[:end])))
    return pairs
