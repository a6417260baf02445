"""What a study would take, and how much of it is there already. No weights are loaded: what is not
fitted yet has a stand-in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from nnsteer.folder import Folder
from nnsteer.measure.kinds import AnswerMeasure, Measure, ModelMeasure
from nnsteer.model.layout import num_layers
from nnsteer.model.load import ModelFiles
from nnsteer.model.lower import edits_before_reading
from nnsteer.program.condition import Condition
from nnsteer.program.direction import Direction
from nnsteer.program.files import load_directions
from nnsteer.program.identity import ModelId
from nnsteer.program.names import READINGS, Method
from nnsteer.program.site import Place, block_outs
from nnsteer.study.cells import Question, Sampling, questions
from nnsteer.study.fitting import (
    Fitted,
    condition,
    directions_file,
    known_condition,
    plane_file,
    scores_file,
)
from nnsteer.study.inputs import Inputs
from nnsteer.study.rows import ANSWERS, VALUES, Keyed, lines, missing, of_answers, of_values
from nnsteer.study.spec import Spec
from nnsteer.study.study import Study

HEADINGS = ("", "there", "missing", "requests", "passes", "tokens read", "tokens written")


class Part(NamedTuple):
    """One line of a plan. Tokens are at most so many: an answer may end early."""

    name: str
    there: int
    missing: int
    """Texts, answers or values."""
    requests: int
    """Traces, each of which would be a request if the model were remote."""
    passes: int
    read: int
    """Tokens of prompts and given answers."""
    written: int
    """Tokens generated."""


@dataclass(frozen=True)
class Planner:
    """All that is known of a run before weights are loaded."""

    spec: Spec
    inputs: Inputs
    files: ModelFiles
    folder: Folder
    """Which may not exist yet."""
    batch_size: int

    @property
    def model(self) -> ModelId:
        """The model that began the folder; in a new one, weights that nothing was fitted on."""
        begun = self.folder.read_json("config.json") if self.folder.has("config.json") else {}
        return (
            ModelId(**begun["model"])
            if "model" in begun
            else ModelId(self.files.name, self.files.revision, "")
        )

    @property
    def weights(self) -> str:
        """The fingerprint of that model's weights."""
        return self.model.weights


def stand_in(planner: Planner) -> tuple[Fitted, dict[str, Condition]]:
    """The directions and conditions of the folder; where it has none, others that no answer there
    was made with."""
    fitted = {
        (name, method): own(planner, name, method)
        for name, methods in planner.spec.fitted.items()
        for method in methods
    }
    conditions = {}
    for name, entry in planner.spec.conditions.items():
        file = scores_file(entry, planner.inputs, fitted)
        known = planner.folder.has(file)
        read = (
            known_condition(entry, fitted, planner.folder, file)
            if known
            else condition(entry, fitted, 0.0, "above")
        )
        conditions[name] = read
    return fitted, conditions


def own(planner: Planner, name: str, method: Method) -> Mapping[Place, Direction]:
    """Fitted directions of every layer; or ones of the same shape, those of another name or method
    not the same."""
    file = planner.folder / directions_file(
        planner.spec, planner.inputs, name, method, planner.weights
    )
    if file.exists():
        return load_directions(file)
    config, read = planner.files.config, READINGS[planner.spec.directions[name].read]
    vector = torch.ones(config.get_text_config().hidden_size)
    return {
        site: Direction(
            vector,
            site,
            read,
            method,
            0 * vector,
            planner.model,
            f"{name}, {method}, not fitted",
            norm=1.0,
        )
        for site in block_outs(range(num_layers(config)))
    }


def plan(planner: Planner, study: Study, fitted: Fitted) -> list[Part]:
    """What is there and what is missing, step by step."""
    chat, sampling = planner.files.chat, Sampling(study.max_new_tokens)
    asked = list(questions(study.variants, study.sets, planner.model, chat, sampling))
    tokens = {
        text: len(planner.files.chat.prompt_ids(text)) for text in {q.prompt.text for q in asked}
    }
    counted = partial(values, planner, study, asked, tokens)
    found = [*fits(planner), *searches(planner, fitted)]
    if study.generates:
        found.append(answers(planner, study, asked, tokens))
    return [*found, *map(counted, study.measures)]


def table(parts: Sequence[Part]) -> Table:
    """A plan for the terminal, with sums of all but texts, answers and values, which don't add
    up."""
    shown = Table(box=SIMPLE, show_footer=True)
    sums = (f"{sum(column):,}" for column in zip(*(part[3:] for part in parts), strict=True))
    for heading, footer in zip(HEADINGS, ("in all", "", "", *sums), strict=True):
        shown.add_column(heading, footer, justify="right" if heading else "left", no_wrap=True)
    for part in parts:
        shown.add_row(escape(part.name), *(f"{count:,}" for count in part[1:]))
    return shown


def fits(planner: Planner) -> Iterator[Part]:
    """The directions to fit."""
    for name, methods in planner.spec.fitted.items():
        contrast = planner.inputs.contrasts[name]
        sides = [planner.files.chat.rows(side) for side in (contrast.positive, contrast.negative)]
        read = [[len(prompt) + len(response) for prompt, response in side] for side in sides]
        files = [
            directions_file(planner.spec, planner.inputs, name, method, planner.weights)
            for method in methods
        ]
        files.append(plane_file(planner.spec, planner.inputs, name, planner.weights))
        yield reading(planner, f"direction {name}", read, all(map(planner.folder.has, files)))


def searches(planner: Planner, fitted: Fitted) -> Iterator[Part]:
    """The conditions to score."""
    for direction, splits in planner.inputs.sides.items():
        entries = {
            name: entry
            for name, entry in planner.spec.conditions.items()
            if entry.direction == direction
        }
        there = all(
            planner.folder.has(scores_file(entry, planner.inputs, fitted))
            for entry in entries.values()
        )
        texts = [text for sides in splits.values() for side in sides for text in side]
        read = [[len(planner.files.chat.prompt_ids(text)) for text in texts]]
        yield reading(planner, f"condition {', '.join(entries)}", read, there)


def reading(planner: Planner, name: str, tokens: Sequence[Sequence[int]], there: bool) -> Part:
    """Texts, by their numbers of tokens, that are read once; each side in batches of its own."""
    n = sum(map(len, tokens))
    if there:
        return Part(name, n, 0, 0, 0, 0, 0)
    passes = sum(batches(len(side), planner.batch_size) for side in tokens)
    return Part(name, 0, n, passes, passes, sum(map(sum, tokens)), 0)


def answers(
    planner: Planner, study: Study, asked: Sequence[Question], tokens: Mapping[str, int]
) -> Part:
    """The answers to generate, batch by batch as `table.Table` makes them."""
    todo, n = still(of_answers(asked), lines(planner.folder, ANSWERS))
    chunks = in_chunks(todo, planner.batch_size)
    ahead = sum(map(reads_ahead, chunks))
    passes = len(chunks) * study.max_new_tokens + ahead
    new = len(todo) * study.max_new_tokens
    return Part(
        "answers",
        n - len(todo),
        len(todo),
        len(chunks) + ahead,
        passes,
        sum(tokens[q.prompt.text] for q in todo),
        new,
    )


def values(
    planner: Planner,
    study: Study,
    asked: Sequence[Question],
    tokens: Mapping[str, int],
    measure: Measure,
) -> Part:
    """The values of a measure. One that takes smaller batches than the study's takes more passes
    than it says here."""
    todo, n = still(
        of_values(asked, measure),
        [row for row in lines(planner.folder, VALUES) if row["value"] is not None],
    )
    name, there = f"values of {measure.name}", n - len(todo)
    if isinstance(measure, AnswerMeasure):
        return Part(name, there, len(todo), 0, 0, 0, 0)
    chunks = in_chunks(todo, planner.batch_size)
    read = sum(tokens[q.prompt.text] for q in todo)
    if isinstance(measure, ModelMeasure):
        passes = len(chunks) + sum(map(reads_ahead, chunks))
        if measure.unsteered_too:
            read += sum(tokens[text] for chunk in chunks for text in {q.prompt.text for q in chunk})
    else:
        passes = len(chunks)
        read += len(todo) * study.max_new_tokens  # the answers themselves
    return Part(name, there, len(todo), passes, passes, read, 0)


def still(asked: Sequence[Keyed], rows: Sequence[dict]) -> tuple[list[Question], int]:
    """What is still to be asked, in the order of a run, and how much there is in all."""
    todo = missing(asked, {row["key"] for row in rows})
    return [one.question for one in todo], len({one.key for one in asked})


def in_chunks(todo: Sequence[Question], size: int) -> list[Sequence[Question]]:
    """Batches of questions."""
    return [todo[start : start + size] for start in range(0, len(todo), size)]


def reads_ahead(chunk: Sequence[Question]) -> bool:
    """Whether a batch's conditions take a pass of their own."""
    return any(edits_before_reading(program) for program in {q.program for q in chunk})


def batches(n: int, size: int) -> int:
    """How many batches `n` rows make."""
    return -(-n // size)
