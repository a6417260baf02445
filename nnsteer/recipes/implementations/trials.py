"""Every implementation beside its site's first: logits, answers and time."""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.progress import bar
from nnsteer.recipes.implementations.ways import WAYS, Subject, Way

SIGNS = {"+c": 1, "0": 0, "-c": -1}
Facts = list[dict[str, Any]]


class Trial(NamedTuple):
    """What an implementation does at +c, 0 and -c."""

    logits: Tensor
    """fp32 [sign, token, vocab], of the same tokens in every trial."""
    answers: list[list[int]]


def steer(subject: Subject, c: float) -> tuple[Facts, Facts]:
    """Of every implementation, its largest logit difference from its site's first and whether all
    answers are the same, or why it was skipped. Of every site's first, what `site_facts` says. The
    logits are those of the prompt and the unsteered answer."""
    prompt, length = subject.prompt, subject.max_new_tokens
    unsteered = subject.runner.generate([prompt], max_new_tokens=length)[0].ids
    tokens = [*subject.tokens, *unsteered]
    turns = [(site, name) for site, ways in WAYS.items() for name in ways]
    rows: Facts = []
    firsts: dict[str, Trial] = {}
    with bar("steering", len(turns)) as watch:
        for site, name in turns:
            row: dict[str, Any] = {"site": site, "implementation": name}
            try:
                trial = at_each_sign(WAYS[site][name], subject, c, tokens)
                first = firsts.setdefault(site, trial)
                row["difference"] = (trial.logits - first.logits).abs().max().item()
                row["same_texts"] = trial.answers == first.answers
            except UserError as error:
                row["skipped"] = str(error)
            rows.append(row)
            watch(1)
    return rows, [site_facts(subject, site, first) for site, first in firsts.items()]


def at_each_sign(way: Way, subject: Subject, c: float, tokens: list[int]) -> Trial:
    """A pass over the tokens and an answer, three times."""
    logits, answers = [], []
    for sign in SIGNS.values():
        with way(subject, sign * c) as steered:
            logits.append(steered.logits(tokens))
            answers.append(steered.answer())
    return Trial(torch.stack(logits), answers)


def site_facts(subject: Subject, site: str, first: Trial) -> dict[str, Any]:
    """By how much the words differ there, by how much +c moves the logits at most, and prompt and
    answer at +c, 0 and -c."""
    texts = [subject.prompt + subject.runner.chat.tokenizer.decode(ids) for ids in first.answers]
    return {
        "site": site,
        "length": subject.lengths[site],
        "moved": (first.logits[0] - first.logits[1]).abs().max().item(),
        "texts": dict(zip(SIGNS, texts, strict=True)),
    }


def clock(subject: Subject, c: float, rows: Facts, repeats: int) -> None:
    """Adds to the rows of what was not skipped the milliseconds per token of an answer at +c: their
    median, least and most, and the median of the ratio to the site's first in the same round."""
    running = {(row["site"], row["implementation"]): row for row in rows if "skipped" not in row}
    times: dict[tuple[str, str], list[float]] = {turn: [] for turn in running}
    with bar("timing", repeats * len(running)) as watch:
        for site, name in [*running] * repeats:
            times[site, name].append(ms_per_token(WAYS[site][name], subject, c))
            watch(1)
    firsts: dict[str, list[float]] = {}
    for (site, name), row in running.items():
        rounds = times[site, name]
        ratios = [a / b for a, b in zip(rounds, firsts.setdefault(site, rounds), strict=True)]
        row["ms_per_token"] = [median(rounds), min(rounds), max(rounds)]
        row["times_first"] = median(ratios)


def ms_per_token(way: Way, subject: Subject, c: float) -> float:
    """Of one answer, with all that the call sets up. A pass over the prompt comes before it, so
    that the clock finds a new copy of the model warm."""
    with way(subject, c) as steered:
        steered.logits(subject.tokens)
        begun = perf_counter()
        answer = steered.answer()
        return 1000 * (perf_counter() - begun) / max(1, len(answer))
