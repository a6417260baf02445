"""What a study would take, and how much of it is there already. No weights are loaded: what is not fitted yet has a stand-in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from nnsteer.condition import Condition
from nnsteer.direction import Direction
from nnsteer.folder import Folder
from nnsteer.formats import load_directions
from nnsteer.identity import ModelId
from nnsteer.layout import num_layers
from nnsteer.load import ModelFiles
from nnsteer.lower import edits_before_reading
from nnsteer.measure.kinds import OfAnswers, OfModel
from nnsteer.names import READINGS
from nnsteer.requests import load_contrast
from nnsteer.runner import Runner
from nnsteer.site import Place, block_outs
from nnsteer.study.build import Fitted, Which, condition, directions_file, known_condition, needed, point_file, tuning_prompts
from nnsteer.study.cells import Question, Study, questions, row_key
from nnsteer.study.run import ANSWERS, EARLIER, JUDGED_AT_ONCE, ROWS
from nnsteer.study.spec import Spec

# passes over a batch that a measure takes; another measure of the model takes one, another of answers none
PASSES = {"kl": 2, "drift": 1, "broken": 1}
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
    files: ModelFiles
    folder: Folder
    """Which may not exist yet."""
    batch_size: int

    @property
    def model(self) -> ModelId:
        """The model that began the folder; in a new one, weights that nothing was fitted on."""
        begun = self.folder.read_json("config.json") if self.folder.has("config.json") else {}
        return ModelId(**begun["model"]) if "model" in begun else ModelId(self.files.name, self.files.revision, "")

    @property
    def weights(self) -> str:
        """The fingerprint of that model's weights."""
        return self.model.weights

    @property
    def runner(self) -> Runner:
        """A runner that can name its model and make tokens of prompts, and nothing else."""
        return Runner(None, self.files.chat, None, self.model, self.batch_size)  # type: ignore[arg-type]


def stand_in(planner: Planner) -> tuple[Fitted, dict[str, Condition]]:
    """The directions and conditions of the folder; where it has none, others that no answer there was made with."""
    fitted = {which: own(planner, which) for which in needed(planner.spec)}
    conditions = {}
    for name, entry in planner.spec.conditions.items():
        file = point_file(planner.spec, entry, planner.weights)
        known = entry.threshold is not None or planner.folder.has(file)
        read = known_condition(entry, fitted, planner.folder, file) if known else condition(entry, fitted, 0.0, "above")
        conditions[name] = read
    return fitted, conditions


def own(planner: Planner, which: Which) -> Mapping[Place, Direction]:
    """Fitted directions of every layer, or ones of the same shape."""
    file = planner.folder / directions_file(planner.spec, which, planner.weights)
    if file.exists():
        return load_directions(file)
    config, entry = planner.files.config, planner.spec.directions[which[0]]
    vector = torch.ones(config.get_text_config().hidden_size)
    return {
        site: Direction(vector, site, READINGS[entry.read], "not fitted", 0 * vector, planner.model, "", norm=1.0)
        for site in block_outs(range(num_layers(config)))
    }


def plan(planner: Planner, study: Study) -> list[Part]:
    """What is there and what is missing, step by step."""
    asked = list(questions(study, planner.runner))
    tokens = {text: len(planner.files.chat.prompt_ids(text)) for text in {q.prompt.text for q in asked}}
    return [*fits(planner), *searches(planner), *answers(planner, study, asked, tokens), *values(planner, study, asked, tokens)]


def table(parts: Sequence[Part]) -> Table:
    """A plan for the terminal, with sums of all but texts, answers and values, which don't add up."""
    shown = Table(box=SIMPLE, show_footer=True)
    sums = (f"{sum(column):,}" for column in zip(*(part[3:] for part in parts), strict=True))
    for heading, footer in zip(HEADINGS, ("in all", "", "", *sums), strict=True):
        shown.add_column(heading, footer, justify="right" if heading else "left", no_wrap=True)
    for part in parts:
        shown.add_row(escape(part.name), *(f"{count:,}" for count in part[1:]))
    return shown


def fits(planner: Planner) -> Iterator[Part]:
    """The directions to fit."""
    for which in needed(planner.spec):
        entry = planner.spec.directions[which[0]]
        contrast = load_contrast(entry.positive, entry.negative, entry.prompts, entry.pairs, planner.spec.seed)
        sides = [planner.files.chat.rows(side) for side in (contrast.positive, contrast.negative)]
        read = [[len(prompt) + len(response) for prompt, response in side] for side in sides]
        yield reading(planner, f"direction {which[0]}, {which[1]}", read, directions_file(planner.spec, which, planner.weights))


def searches(planner: Planner) -> Iterator[Part]:
    """The thresholds to find."""
    for name, entry in planner.spec.conditions.items():
        if entry.threshold is None:
            read = [[len(planner.files.chat.prompt_ids(text)) for text in side] for side in tuning_prompts(planner.spec, entry)]
            yield reading(planner, f"condition {name}", read, point_file(planner.spec, entry, planner.weights))


def reading(planner: Planner, name: str, tokens: Sequence[Sequence[int]], file: str) -> Part:
    """Texts of two sides, by their numbers of tokens, that are read once for a file."""
    n = sum(map(len, tokens))
    if planner.folder.has(file):
        return Part(name, n, 0, 0, 0, 0, 0)
    passes = sum(batches(len(side), planner.batch_size) for side in tokens)
    return Part(name, 0, n, passes, passes, sum(map(sum, tokens)), 0)


def answers(planner: Planner, study: Study, asked: Sequence[Question], tokens: Mapping[str, int]) -> Iterator[Part]:
    """The answers to generate, batch by batch as `run.answer` makes them."""
    if not any(isinstance(measure, OfAnswers) for measure in study.measures):
        return
    there = {(row["key"], row["variant"], row["set"]) for row in kept(planner.folder, ANSWERS)}
    missing = [q for q in asked if (q.key, q.variant.name, q.set) not in there]
    chunks = in_chunks(missing, planner.batch_size)
    ahead = sum(map(reads_ahead, chunks))
    passes = len(chunks) * study.max_new_tokens + ahead
    read = sum(tokens[q.prompt.text] for q in missing)
    new = len(missing) * study.max_new_tokens
    yield Part("answers", len(asked) - len(missing), len(missing), len(chunks) + ahead, passes, read, new)


def values(planner: Planner, study: Study, asked: Sequence[Question], tokens: Mapping[str, int]) -> Iterator[Part]:
    """The values of each measure. One that takes smaller batches than the study's takes more passes than it says here."""
    there = {row["key"] for row in kept(planner.folder, ROWS) if row["value"] is not None}
    for measure in study.measures:
        missing = [q for q in asked if row_key(q, measure) not in there]
        each = PASSES.get(measure.name, int(isinstance(measure, OfModel)))
        read = each * sum(tokens[q.prompt.text] for q in missing)
        if isinstance(measure, OfModel):
            chunks = in_chunks(missing, planner.batch_size)
            passes = each * len(chunks) + sum(map(reads_ahead, chunks))
        else:
            passes = each * sum(batches(len(chunk), planner.batch_size) for chunk in in_chunks(missing, JUDGED_AT_ONCE))
            read += each * len(missing) * study.max_new_tokens  # the answers themselves
        yield Part(f"values of {measure.name}", len(asked) - len(missing), len(missing), passes, passes, read, 0)


def kept(folder: Folder, name: str) -> list[dict]:
    """The whole rows of a file and those that were set aside for an earlier version of the study. Unlike `Folder.read_lines` it
    mends nothing: the run may be under way."""
    files = [path for path in (folder / name, folder / (EARLIER + name)) if path.exists()]
    return [json.loads(line) for path in files for line in path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()]


def in_chunks(missing: Sequence[Question], size: int) -> list[list[Question]]:
    """Batches of questions in the order in which a run takes them."""
    ordered = sorted(missing, key=lambda q: len(q.prompt.text))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def reads_ahead(chunk: Sequence[Question]) -> bool:
    """Whether a batch's conditions take a pass of their own."""
    return any(edits_before_reading(program) for program in {q.variant.program for q in chunk})


def batches(n: int, size: int) -> int:
    """How many batches `n` rows make."""
    return -(-n // size)
