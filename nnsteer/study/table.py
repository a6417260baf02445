"""The table of a run: what is asked of it is answered and measured once, each line on disk as soon
as it is there; what is there already is not asked again."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.measure.kinds import Answer, AnswerMeasure, Measure, ModelMeasure, ReadingMeasure
from nnsteer.model.completion import Completion
from nnsteer.model.runner import Runner
from nnsteer.progress import bar
from nnsteer.study.cells import GREEDY, Question, Sampling, Variant, questions, value_key
from nnsteer.study.rows import (
    ANSWERS,
    VALUES,
    Keyed,
    Place,
    Row,
    copy_known,
    joined,
    missing,
    of_answers,
    of_values,
)
from nnsteer.texts.sets import PromptSet

JUDGED_AT_ONCE = 64  # answers between two writes
Work = Callable[[Runner, Sequence[Question]], list[dict]]
"""Makes the lines of one batch."""


@dataclass(frozen=True)
class Table:
    """Where answers and values are kept, the model that gives them, and how it is asked."""

    folder: Folder
    runner: Runner
    sampling: Sampling = GREEDY

    def questions(self, variants: Iterable[Variant], sets: Iterable[PromptSet]) -> list[Question]:
        """Every prompt of every set under every variant."""
        runner = self.runner
        return list(questions(variants, tuple(sets), runner.model, runner.chat, self.sampling))

    def ask(
        self,
        variants: Sequence[Variant],
        sets: Sequence[PromptSet],
        measures: Sequence[Measure],
    ) -> list[Row]:
        """The row of every prompt under every variant, in this order: from the folder where it is
        there, else answered and measured. Variants share batches."""
        asked = self.questions(variants, sets)
        answers, values = self.complete(asked, measures)
        rows = []
        for question, keyed in zip(asked, of_answers(asked), strict=True):
            of_row = {m.name: values[value_key(question, m)]["value"] for m in measures}
            rows.append(joined(keyed.place[1:], answers.get(question.key, {}), of_row))
        return rows

    def complete(
        self, asked: Sequence[Question], measures: Sequence[Measure]
    ) -> tuple[dict[str, dict], dict[str, dict]]:
        """Adds to completions.jsonl and rows.jsonl what they lack of these questions; returns the
        lines of both by key."""
        answers: dict[str, dict] = {}
        part = shared_part({question.set for question in asked})
        if not all(isinstance(measure, ModelMeasure) for measure in measures):
            keyed = of_answers(asked)
            answers = copy_known(self.folder, ANSWERS, keyed)
            self.fill(ANSWERS, f"answers{part}", keyed, answers, self.runner, self.answer)
        keyed_values = {measure.name: of_values(asked, measure) for measure in measures}
        everything = [keyed for of_measure in keyed_values.values() for keyed in of_measure]
        values = copy_known(self.folder, VALUES, everything)
        for measure in measures:
            judges = isinstance(measure, AnswerMeasure)
            runner = self.runner.with_batch_size(JUDGED_AT_ONCE) if judges else self.runner
            work = partial(measured, measure, answers)
            task = f"{measure.name}{part}"
            self.fill(VALUES, task, keyed_values[measure.name], values, runner, work)
        return answers, values

    def answer(self, runner: Runner, chunk: Sequence[Question]) -> list[dict]:
        """Generates a batch of answers."""
        prompts, programs = [q.prompt.text for q in chunk], [q.program for q in chunk]
        completions = runner.generate(
            prompts,
            programs,
            self.sampling.max_new_tokens,
            self.sampling.temperature,
            self.sampling.seed,
            row_ids=[q.noise for q in chunk],
        )
        return list(map(answer_line, completions))

    def fill(
        self,
        name: str,
        task: str,
        asked: Sequence[Keyed],
        known: dict[str, dict],
        runner: Runner,
        work: Work,
    ) -> None:
        """Adds the lines that a file lacks, and to `known`, batch by batch: each result once, at
        every place where it stands. A batch that does not fit into memory is halved."""
        places: dict[str, list[Place]] = {}
        for keyed in asked:
            places.setdefault(keyed.key, []).append(keyed.place)
        todo = missing(asked, known)
        if not todo:
            return
        with bar(task, len(places)) as advance:
            advance(len(places) - len(todo))
            while todo:
                chunk = todo[: runner.batch_size]
                try:
                    made = work(runner, [keyed.question for keyed in chunk])
                except torch.OutOfMemoryError:
                    runner = halved(runner)
                    continue
                new = {keyed.key: line for keyed, line in zip(chunk, made, strict=True)}
                known |= new
                lines = [place._asdict() | new[key] for key in new for place in places[key]]
                self.folder.append(name, lines)
                advance(len(chunk))
                todo = todo[len(chunk) :]


def measured(
    measure: Measure, answers: dict[str, dict], runner: Runner, chunk: Sequence[Question]
) -> list[dict]:
    """The values of a batch."""
    prompts = [q.prompt for q in chunk]
    if isinstance(measure, ModelMeasure):
        values = measure.values(runner, [q.program for q in chunk], prompts)
    else:
        lines = [answers[q.key] for q in chunk]
        given = [
            Answer(prompt, line["completion"], tuple(line["ids"]))
            for prompt, line in zip(prompts, lines, strict=True)
        ]
        values = judged(measure, runner, given)
    return [{"measure": measure.name, "value": null_for_nan(value)} for value in values]


def judged(
    measure: AnswerMeasure | ReadingMeasure, runner: Runner, given: Sequence[Answer]
) -> list:
    """The value of each answer. Where a condition does not hold, variants give the same answer: it
    is judged once."""
    distinct = list(dict.fromkeys(given))
    if isinstance(measure, ReadingMeasure):
        values = measure.values(runner, distinct)
    else:
        values = measure.values(distinct)
    value_of = dict(zip(distinct, values, strict=True))
    return [value_of[answer] for answer in given]


def shared_part(sets: Collection[str]) -> str:
    """`, tune` for sets such as `harmful tune` and `harmless tune`, for the progress bar."""
    parts = {name.partition(" ")[2] for name in sets}
    return f", {parts.pop()}" if len(parts) == 1 and all(parts) else ""


def halved(runner: Runner) -> Runner:
    """The runner with half its batch size. Raises UserError when one row is too many."""
    if runner.batch_size == 1:
        raise UserError(
            "out of memory with a single prompt; "
            "use a smaller model, a shorter answer or a larger device"
        )
    torch.cuda.empty_cache()
    return runner.with_batch_size(runner.batch_size // 2)


def answer_line(completion: Completion) -> dict:
    """One line of completions.jsonl, but for where it stands."""
    return {
        "completion": completion.text,
        "ids": list(completion.ids),
        "scores": list(completion.scores),
        "fired": list(completion.fired),
    }


def null_for_nan(value: Any) -> Any:
    """A value that could not be had is null."""
    return None if isinstance(value, float) and math.isnan(value) else value
