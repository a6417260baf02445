"""Runs what is missing of a study: answers, then measures, each line on disk as soon as it is there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from nnsteer.errors import UserError
from nnsteer.folder import Folder, hold
from nnsteer.measure.kinds import Answer, Measure, OfAnswers, OfModel, OfReading
from nnsteer.model.completion import Completion
from nnsteer.model.runner import Runner
from nnsteer.progress import bar
from nnsteer.study.cells import BASELINE, Question, Study, questions
from nnsteer.study.rows import ANSWERS, VALUES, Keyed, forget_failures, missing, of_answers, of_values, sort_out

JUDGED_AT_ONCE = 64  # answers between two writes
Work = Callable[[Runner, Sequence[Question]], list[dict]]
"""Makes the lines of one batch."""


def run(study: Study, runner: Runner, folder: Folder) -> None:
    """Completes completions.jsonl and rows.jsonl; values that could not be had are asked for again. Raises UserError while
    another process is at work."""
    lock = hold(folder.path)
    try:
        complete(study, runner, folder)
    finally:
        lock.release()


def complete(study: Study, runner: Runner, folder: Folder) -> None:
    """The same, for the one process that is at work."""
    folder.write_json("study.json", described(study))
    asked = list(questions(study, runner.model, runner.chat))
    if study.generates:
        sort_out(folder, ANSWERS, (one.place for one in of_answers(asked)))
        answer(study, runner, folder, asked)
    sort_out(folder, VALUES, (one.place for measure in study.measures for one in of_values(asked, measure)))
    forget_failures(folder)
    answers = {row["key"]: row for row in folder.read_lines(ANSWERS)}
    for measure in study.measures:
        take(measure, runner, folder, asked, answers)


def answer(study: Study, runner: Runner, folder: Folder, asked: Sequence[Question]) -> None:
    """Generates every answer that is missing. Many variants share a batch."""

    def work(runner: Runner, chunk: Sequence[Question]) -> list[dict]:
        completions = runner.generate([q.prompt.text for q in chunk], [q.variant.program for q in chunk], study.max_new_tokens)
        return [answer_row(q.prompt.text, completion) for q, completion in zip(chunk, completions, strict=True)]

    fill(folder, ANSWERS, "answers", of_answers(asked), runner, work)


def take(measure: Measure, runner: Runner, folder: Folder, asked: Sequence[Question], answers: dict[str, dict]) -> None:
    """Takes one measure wherever it is missing."""

    def work(runner: Runner, chunk: Sequence[Question]) -> list[dict]:
        if isinstance(measure, OfModel):
            values = measure.values(runner, [q.variant.program for q in chunk], [q.prompt for q in chunk])
        else:
            found = [answers[q.key] for q in chunk]
            given = [Answer(q.prompt, a["completion"], tuple(a["ids"])) for q, a in zip(chunk, found, strict=True)]
            values = judged(measure, runner, given)
        return [value_row(q.prompt.text, measure, value) for q, value in zip(chunk, values, strict=True)]

    at_once = runner.with_batch_size(JUDGED_AT_ONCE) if isinstance(measure, OfAnswers) else runner
    fill(folder, VALUES, measure.name, of_values(asked, measure), at_once, work)


def judged(measure: OfAnswers | OfReading, runner: Runner, given: Sequence[Answer]) -> list[float]:
    """The value of each answer. Where a condition does not hold, variants give the same answer: it is judged once."""
    each = list(dict.fromkeys(given))
    values = measure.values(each) if isinstance(measure, OfAnswers) else measure.values(runner, each)
    found = dict(zip(each, values, strict=True))
    return [found[answer] for answer in given]


def fill(folder: Folder, name: str, task: str, asked: Sequence[Keyed], runner: Runner, work: Work) -> None:
    """Adds the lines that a file lacks, batch by batch: each result once, at every place where it stands. A batch that does not
    fit into memory is halved."""
    places: dict[str, list[dict]] = {}
    for one in asked:
        places.setdefault(one.key, []).append(one.place._asdict())
    todo = missing(asked, {row["key"] for row in folder.read_lines(name)})
    with bar(task, len(places)) as advance:
        advance(len(places) - len(todo))
        start = 0
        while start < len(todo):
            chunk = todo[start : start + runner.batch_size]
            try:
                made = work(runner, [one.question for one in chunk])
            except torch.OutOfMemoryError:
                runner = halved(runner)
                continue
            folder.append(name, [here | row for one, row in zip(chunk, made, strict=True) for here in places[one.key]])
            advance(len(chunk))
            start += len(chunk)


def halved(runner: Runner) -> Runner:
    """The runner with half its batch size. Raises UserError when one row is too many."""
    if runner.batch_size == 1:
        raise UserError("out of memory with a single prompt; use a smaller model, a shorter answer or a larger device")
    torch.cuda.empty_cache()
    return runner.with_batch_size(runner.batch_size // 2)


def answer_row(prompt: str, completion: Completion) -> dict:
    """One line of completions.jsonl, but for where it stands."""
    return {
        "prompt": prompt,
        "completion": completion.text,
        "ids": list(completion.ids),
        "scores": list(completion.scores),
        "fired": list(completion.fired),
    }


def value_row(prompt: str, measure: Measure, value: float) -> dict:
    """One line of rows.jsonl, but for where it stands; a value that could not be had is null."""
    return {"prompt": prompt, "measure": measure.name, "value": None if math.isnan(value) else value}


def described(study: Study) -> dict:
    """What study.json says for the report."""
    return {
        "baseline": BASELINE,
        "variants": [{"name": v.name, "axes": dict(v.axes), "program": str(v.program)} for v in study.variants],
        "controls": dict(study.controls),
        "sets": [{"name": s.name, "n": len(s.prompts)} for s in study.sets],
        "measures": [{"name": m.name, "settings": m.settings, "binary": m.binary} for m in study.measures],
        "max_new_tokens": study.max_new_tokens,
        "recommend": study.recommend,
        "planes": dict(study.planes),
        "scores": dict(study.scores),
    }
