"""Sampled answers to prompts under programs, cell by cell, to rows on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import isnan

from nnsteer.folder import Folder
from nnsteer.measure.kinds import Answer, OfAnswers, OfReading
from nnsteer.model.runner import Runner
from nnsteer.program.program import Program
from nnsteer.progress import bar
from nnsteer.texts.refusal import Side
from nnsteer.texts.source import Prompt

Question = tuple[Side, Prompt]
KEY = ("method", "alpha", "side", "prompt", "sample")
"""The columns that name an answer in a file."""


@dataclass(frozen=True)
class Cell:
    """A method at one alpha. The prompts take its programs in turn."""

    method: str
    alpha: float
    programs: tuple[Program, ...]


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. A sample depends on the seed and on the prompt's place alone: all cells share their noise."""

    samples: int
    temperature: float
    max_new_tokens: int
    seed: int


@dataclass(frozen=True)
class Judged:
    """What counts as a refusal and what as broken."""

    refusal: OfAnswers
    broken: OfReading


@dataclass(frozen=True)
class Row:
    """One line of a file of answers. `refused` and `broken` exclude each other; `refused` is null where no judgement was had."""

    method: str
    alpha: float
    side: str
    kind: str
    prompt: str
    sample: int
    completion: str
    refused: bool | None
    broken: bool


def ask(
    folder: Folder, name: str, runner: Runner, cells: Sequence[Cell], questions: Sequence[Question], sampling: Sampling,
    judged: Judged,
) -> list[Row]:  # fmt: skip
    """The rows of every cell, from the folder's file `name`; a cell that is not whole there is asked, judged and appended.
    Cells of the same programs (ablation at any alpha) share their answers."""
    have: dict[tuple[str, float], list[Row]] = {}
    for line in folder.read_lines(name, KEY):
        have.setdefault((line["method"], line["alpha"]), []).append(Row(**line))
    asked = [(side, prompt, sample) for side, prompt in questions for sample in range(sampling.samples)]
    known: dict[tuple[Program, ...], list[Row]] = {}
    with bar(name, len(cells) * len(asked)) as watch:
        for cell in cells:
            own = have.setdefault((cell.method, cell.alpha), [])
            if len(own) < len(asked):
                rows = known.get(cell.programs) or answered(runner, cell, asked, sampling, judged)
                there = {(row.side, row.prompt, row.sample) for row in own}
                new = [replace(row, method=cell.method, alpha=cell.alpha) for row in rows]
                new = [row for row in new if (row.side, row.prompt, row.sample) not in there]
                folder.append(name, map(asdict, new))
                own += new
            known[cell.programs] = own
            watch(len(asked))
    return [row for cell in cells for row in have[cell.method, cell.alpha]]


def answered(
    runner: Runner, cell: Cell, asked: Sequence[tuple[Side, Prompt, int]], sampling: Sampling, judged: Judged
) -> list[Row]:
    """One cell's answers, drawn in one call, so that a row's number, and with it its sample, is always the same."""
    places = {prompt: i for i, prompt in enumerate(dict.fromkeys((side, prompt) for side, prompt, _ in asked))}
    programs = [cell.programs[places[side, prompt] % len(cell.programs)] for side, prompt, _ in asked]
    texts = [prompt.text for _, prompt, _ in asked]
    completions = runner.generate(texts, programs, sampling.max_new_tokens, sampling.temperature, sampling.seed)
    answers = [Answer(prompt, c.text, c.ids) for (_, prompt, _), c in zip(asked, completions, strict=True)]
    verdicts = zip(judged.refusal.values(answers), judged.broken.values(runner, answers), strict=True)
    return [
        Row(
            cell.method, cell.alpha, side, prompt.kind, prompt.text, sample, answer.text,
            refused=None if isnan(refused) else bool(refused) and not bad, broken=bool(bad),
        )
        for (side, prompt, sample), answer, (refused, bad) in zip(asked, answers, verdicts, strict=True)
    ]  # fmt: skip
