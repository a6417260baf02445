"""Judging answers with a language model behind an OpenAI-compatible endpoint: yes or no, or a
number from 0 to 10.

Every reply is kept in judge.jsonl in the run folder, so that nothing is asked twice. A reply that
is neither is a failure, never a score.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.measure.endpoint import Endpoint, ask, check
from nnsteer.measure.kinds import Answer, AnswerMeasure, fingerprint
from nnsteer.toml import read_toml

FILE = "judge.jsonl"
Scale = Literal["yes-no", "0-10"]
REPLY = {  # strict, so that a model that talks round the question counts as a failure
    "yes-no": re.compile(
        r"""[\s"'*`]*(yes|no)(?:[\s"'*`]*$|["'*`]*[.,;:!\n].*)""", re.IGNORECASE | re.DOTALL
    ),
    "0-10": re.compile(r"""[\s"'*`]*(10|\d)(?:\.0)?(?:["'*`]*\s*(?:/|out of)\s*10)?[\s"'*`.]*"""),
}
TEXT, TABLE, COUNT = ((str,), "a text"), ((dict,), "a table"), ((int,), "a count")
NUMBER = (int, float), "a number above 0"
ENTRIES: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("rubric", "scale", "url", "model", "key"), TEXT),
    **dict.fromkeys(("concurrency", "attempts"), COUNT),
    **dict.fromkeys(("timeout_s", "wait_s"), NUMBER),
    "options": TABLE,
}
NEEDED = ("rubric", "scale", "url", "model")


@dataclass(frozen=True)
class Rubric:
    """The question to the judge, with {answer} and, where it matters, {prompt} in it, and what the
    reply may be: 1 for yes and 0 for no, or the number."""

    text: str
    scale: Scale


def judge(rubric: Rubric, endpoint: Endpoint, folder: Folder) -> AnswerMeasure:
    """The judge's value of each answer, NaN for a failure. Raises UserError at once for a key that
    is not set."""
    check(endpoint)

    def values(answers: Sequence[Answer]) -> list[float]:
        return judged(rubric, endpoint, folder, answers)

    return AnswerMeasure("judge", identity(rubric, endpoint), rubric.scale == "yes-no", values)


def judged(
    rubric: Rubric, endpoint: Endpoint, folder: Folder, answers: Sequence[Answer]
) -> list[float]:
    """The same for given answers, of which only the texts are used. What has had a reply, sense or
    nonsense, is not asked again; what had none (an error, a time-out) is."""
    who = identity(rubric, endpoint)
    lines = [
        line
        for line in folder.read_lines(FILE)
        if line["judge"] == who and line["reply"] is not None
    ]
    known = {(line["prompt"], line["answer"]): line["value"] for line in lines}
    texts = [(answer.prompt.text, answer.text) for answer in answers]
    missing = [pair for pair in dict.fromkeys(texts) if pair not in known]
    for number, reply in (
        ask(endpoint, [question(rubric, *pair) for pair in missing]) if missing else ()
    ):
        prompt, answer = missing[number]
        known[prompt, answer] = None if reply.reply is None else value(rubric.scale, reply.reply)
        line = {
            "judge": who,
            "prompt": prompt,
            "answer": answer,
            "value": known[prompt, answer],
            **asdict(reply),
        }
        folder.append(FILE, [line])
    return [float("nan") if known[pair] is None else known[pair] for pair in texts]


def identity(rubric: Rubric, endpoint: Endpoint) -> str:
    """Names all that decides the replies."""
    decides = [rubric.text, rubric.scale, endpoint.url, endpoint.model, dict(endpoint.options)]
    return f"{endpoint.model} at {endpoint.url}, {rubric.scale}, {fingerprint(decides)}"


def question(rubric: Rubric, prompt: str, answer: str) -> str:
    """The rubric with both texts in their places; braces within the texts stay."""
    texts = {"prompt": prompt, "answer": answer}
    return re.sub(r"\{(prompt|answer)\}", lambda place: texts[place[1]], rubric.text)


def value(scale: Scale, reply: str) -> float | None:
    """What the reply says on the scale; None for nonsense."""
    found = REPLY[scale].fullmatch(reply)
    if found is None:
        return None
    return float(found[1].lower() == "yes") if scale == "yes-no" else float(found[1])


def load_judge(path: Path) -> tuple[Rubric, Endpoint]:
    """A judge in a TOML file like recipes/judge.toml: `rubric`, `scale`, `url` and `model`, and any
    other field of Endpoint. Raises UserError naming the entry that is wrong."""
    given = read_toml(path, "judge ", "a file like recipes/judge.toml")
    for name, entry in given.items():
        if name not in ENTRIES:
            raise UserError(f"judge {path}: no such entry: {name}; known: {', '.join(ENTRIES)}")
        types, words = ENTRIES[name]
        if type(entry) not in types or (isinstance(entry, (int, float)) and entry <= 0):
            raise UserError(f"judge {path}: {name} = {entry!r}; give {words}")
    missing = [name for name in NEEDED if name not in given]
    if missing:
        raise UserError(f"judge {path}: lacks {', '.join(missing)}; add it")
    if given["scale"] not in get_args(Scale):
        raise UserError(
            f"judge {path}: scale {given['scale']!r}; choose {' or '.join(get_args(Scale))}"
        )
    if "{answer}" not in given["rubric"]:
        raise UserError(
            f"judge {path}: the rubric has no {{answer}} in it, "
            "so the judge would not see the answer; add it"
        )
    options = {field.name: given[field.name] for field in fields(Endpoint) if field.name in given}
    return Rubric(given["rubric"], given["scale"]), Endpoint(**options)
