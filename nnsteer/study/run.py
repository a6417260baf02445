"""Runs what is missing of a study: answers, then measures, each row on disk as soon as it is there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from filelock import FileLock, Timeout

from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.measure.kinds import Answer, Measure, OfAnswers
from nnsteer.progress import bar
from nnsteer.runner import Completion, Runner
from nnsteer.study.cells import BASELINE, Question, Study, questions, row_key

ANSWERS, ROWS, EARLIER = "completions.jsonl", "rows.jsonl", "earlier_"
JUDGED_AT_ONCE = 64  # answers between two writes


def run(study: Study, runner: Runner, folder: Folder) -> None:
    """Completes completions.jsonl and rows.jsonl. Rows of an earlier version of the study move to earlier_*.jsonl, and come back
    when it does; values that could not be had are asked for again. Raises UserError while another process is at work."""
    with locked(folder):
        folder.write_json("study.json", described(study))
        asked = list(questions(study, runner))
        if any(isinstance(measure, OfAnswers) for measure in study.measures):
            sort_out(folder, ANSWERS, {(q.key, q.variant.name, q.set) for q in asked}, ("key", "variant", "set"))
            answer(study, runner, folder, asked)
        forget_failures(folder)
        sort_out(folder, ROWS, {(row_key(q, m),) for q in asked for m in study.measures}, ("key",))
        answers = {row["key"]: row for row in folder.read_lines(ANSWERS)}
        for measure in study.measures:
            take(measure, runner, folder, asked, answers)


@contextmanager
def locked(folder: Folder) -> Iterator[None]:
    """Keeps a second process out of the folder; a killed one's lock goes with it."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"--out {folder.path}: another process is at work on it; wait for it or give another folder") from None
    try:
        yield
    finally:
        lock.release()


def sort_out(folder: Folder, name: str, wanted: set[tuple], fields: tuple[str, ...]) -> None:
    """Leaves in a file the rows that the study has, and keeps the others in another file."""
    here, earlier = folder.read_lines(name), folder.read_lines(EARLIER + name)
    unique = {tuple(row[field] for field in fields): row for row in (*earlier, *here)}
    inside = [row for key, row in unique.items() if key in wanted]
    if len(inside) == len(here) and all(tuple(row[field] for field in fields) in wanted for row in here):
        return
    # the copy first: a kill between the two writes leaves a row twice, which the next start makes one of
    folder.write_lines(EARLIER + name, [row for key, row in unique.items() if key not in wanted])
    folder.write_lines(name, inside)


def forget_failures(folder: Folder) -> None:
    """Removes rows whose value could not be had, a judge's time-out for one, so that it is asked for again."""
    rows = folder.read_lines(ROWS)
    had = [row for row in rows if row["value"] is not None]
    if len(had) < len(rows):
        folder.write_lines(ROWS, had)


def answer(study: Study, runner: Runner, folder: Folder, asked: Sequence[Question]) -> None:
    """Generates every answer that is missing. Many variants share a batch: equal lengths beside one another, whatever the
    program."""
    there = {(row["key"], row["variant"], row["set"]) for row in folder.read_lines(ANSWERS)}
    missing = [q for q in asked if (q.key, q.variant.name, q.set) not in there]
    missing.sort(key=lambda q: len(q.prompt.text))
    with bar("answers", len(asked)) as advance:
        advance(len(asked) - len(missing))
        start = 0
        while start < len(missing):
            chunk = missing[start : start + runner.batch_size]
            try:
                got = runner.generate([q.prompt.text for q in chunk], [q.variant.program for q in chunk], study.max_new_tokens)
            except torch.OutOfMemoryError:
                runner = halved(runner)
                continue
            folder.append(ANSWERS, [answer_row(q, completion) for q, completion in zip(chunk, got, strict=True)])
            advance(len(chunk))
            start += len(chunk)


def halved(runner: Runner) -> Runner:
    """The runner with half its batch size. Raises UserError when one row is too many."""
    if runner.batch_size == 1:
        raise UserError("out of memory with a single prompt; use a smaller model, a shorter answer or a larger device")
    torch.cuda.empty_cache()
    return runner.with_batch_size(runner.batch_size // 2)


def answer_row(question: Question, completion: Completion) -> dict:
    """One line of completions.jsonl."""
    return {
        "key": question.key,
        "variant": question.variant.name,
        "set": question.set,
        "kind": question.prompt.kind,
        "prompt": question.prompt.text,
        "completion": completion.text,
        "ids": list(completion.ids),
        "scores": list(completion.scores),
        "fired": list(completion.fired),
    }


def take(measure: Measure, runner: Runner, folder: Folder, asked: Sequence[Question], answers: dict[str, dict]) -> None:
    """Takes one measure wherever it is missing."""
    have = {row["key"] for row in folder.read_lines(ROWS)}
    missing = [q for q in asked if row_key(q, measure) not in have]
    missing.sort(key=lambda q: len(q.prompt.text))
    step = JUDGED_AT_ONCE if isinstance(measure, OfAnswers) else runner.batch_size
    with bar(measure.name, len(asked)) as advance:
        advance(len(asked) - len(missing))
        for start in range(0, len(missing), step):
            chunk = missing[start : start + step]
            if isinstance(measure, OfAnswers):
                found = [answers[q.key] for q in chunk]
                given = [Answer(q.prompt, a["completion"], tuple(a["ids"])) for q, a in zip(chunk, found, strict=True)]
                values = measure.values(given)
            else:
                values = measure.values(runner, [q.variant.program for q in chunk], [q.prompt for q in chunk])
            folder.append(ROWS, [value_row(q, measure, value) for q, value in zip(chunk, values, strict=True)])
            advance(len(chunk))


def value_row(question: Question, measure: Measure, value: float) -> dict:
    """One line of rows.jsonl; a value that could not be had is null."""
    return {
        "key": row_key(question, measure),
        "variant": question.variant.name,
        "set": question.set,
        "kind": question.prompt.kind,
        "prompt": question.prompt.text,
        "measure": measure.name,
        "value": None if math.isnan(value) else value,
    }


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
    }
