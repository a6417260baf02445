"""Asking and judging: prompts under programs, to rows on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from nnsteer.folder import Folder
from nnsteer.measure.coherence import broken, drift
from nnsteer.measure.kinds import Answer, OfAnswers
from nnsteer.model.runner import Runner
from nnsteer.program.program import Program
from nnsteer.progress import bar
from nnsteer.texts.source import Prompt

KEY = ("variant", "side", "kind", "prompt")
"""The columns that name an answer in a file."""


class Asked(NamedTuple):
    """One prompt under one program."""

    variant: str
    side: str
    """`harmful` or `harmless`."""
    prompt: Prompt
    program: Program


@dataclass(frozen=True)
class Row:
    """One line of rows.jsonl. `refused` and `broken` exclude each other."""

    variant: str
    side: str
    kind: str
    prompt: str
    completion: str
    refused: bool
    broken: bool
    drift: float
    """Median loss of the completion's tokens under the unsteered model, nats."""
    score: float | None
    """The condition's score on the prompt; null where the variant has no condition."""
    fired: bool | None
    """The condition's verdict, on which the variant acted."""


@dataclass(frozen=True)
class Judge:
    """What counts as a refusal and what as broken."""

    refusal: OfAnswers
    max_drift: float


def answers(runner: Runner, asked: Sequence[Asked], judge: Judge, max_new_tokens: int) -> Iterator[list[Row]]:
    """Generates and judges every prompt, a batch at a time, greedily. Different programs share batches."""
    for start in range(0, len(asked), runner.batch_size):
        chunk = asked[start : start + runner.batch_size]
        prompts = [a.prompt.text for a in chunk]
        completions = runner.generate(prompts, [a.program for a in chunk], max_new_tokens)
        losses = runner.losses(prompts, [c.ids for c in completions])
        refusals = judge.refusal.values([Answer(a.prompt, c.text, c.ids) for a, c in zip(chunk, completions, strict=True)])
        rows = []
        for a, completion, loss, refused in zip(chunk, completions, losses, refusals, strict=True):
            bad = broken(completion.text, loss, judge.max_drift)
            rows.append(
                Row(
                    variant=a.variant,
                    side=a.side,
                    kind=a.prompt.kind,
                    prompt=a.prompt.text,
                    completion=completion.text,
                    refused=not bad and bool(refused),
                    broken=bad,
                    drift=round(drift(loss), 4),
                    score=completion.scores[0] if completion.scores else None,
                    fired=completion.fired[0] if completion.fired else None,
                )
            )
        yield rows


def ask(folder: Folder, name: str, runner: Runner, asked: Sequence[Asked], judge: Judge, max_new_tokens: int) -> list[Row]:
    """The row of each question, from the folder's file `name`; what is not there yet is asked, prompts of like length together,
    and appended batch by batch, so that a run killed here repeats nothing."""
    have = {tuple(row[part] for part in KEY) for row in folder.read_lines(name)}
    missing = sorted({key(a): a for a in asked if key(a) not in have}.values(), key=lambda a: -len(a.prompt.text))
    with bar(name, len(asked)) as advance:
        advance(len(asked) - len(missing))
        for rows in answers(runner, missing, judge, max_new_tokens):
            folder.append(name, map(asdict, rows))
            advance(len(rows))
    found = {tuple(row[part] for part in KEY): Row(**row) for row in folder.read_lines(name, KEY)}
    return [found[key(a)] for a in asked]


def key(asked: Asked) -> tuple[str, str, str, str]:
    """What stands in those columns."""
    return asked.variant, asked.side, asked.prompt.kind, asked.prompt.text
