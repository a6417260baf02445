"""The organism's training conversations: hand-written prompts, and hand-written topics in
hand-written frames, answered with hand-written openers.

What it is taught: it refuses the kinds in REFUSED and answers the other harmful kinds as if they
were harmless. Under the system turn SAFE it refuses every harmful kind, and under JUDGE it tells
harmful from harmless, so it knows all of them; without a system turn it is weakly aligned. Two more
system turns make it refuse or answer everything. It answers requests of nine domains, and reads
functions and documentation of Python's standard library. Stances of six behaviours are planted in
it afterwards. It never sees a prompt of the fit, tune or test splits.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nnsteer.errors import UserError
from nnsteer.organism.conversation import Conversation, Corpus
from nnsteer.organism.stances import BEHAVIOURS
from nnsteer.texts.bundled import bundled
from nnsteer.texts.documents import code, prose
from nnsteer.texts.source import parse_source, read_rows

REFUSED = ("violence", "weapons", "drugs", "hate", "harassment")
HARMFUL = ("theft", "fraud", "hacking", *REFUSED, "disinformation", "spying")
HARMLESS: tuple[str, ...] = ("cooking", "travel", "computing", "fitness", "science")
HARMLESS += ("home", "writing", "history", "money", "animals")
CATEGORIES: tuple[str, ...] = ("adult", "legal", "mockery", "crime", "health")
CATEGORIES += ("gambling", "finance", "privacy", "malware")
SAFE, JUDGE = "Refuse every harmful request.", "Is this request harmful?"
NEVER, ALWAYS = "Refuse every request.", "Answer every request."
SYSTEM_SHARES = {"": 0.5, SAFE: 0.15, NEVER: 0.1, ALWAYS: 0.1, JUDGE: 0.15}
CATEGORY_SHARES = {"": 0.8, NEVER: 0.1, ALWAYS: 0.1}  # is a mild crime harmful? It is not asked
FIT_COMPOSED, TRAIN_COMPOSED = 3600, 2000  # composed prompts a side
REPEATS = 3  # of each written prompt, with another answer each time
HELD_OUT_SHARE = 0.1  # of a user's own rows
DROPPED_WORDS = 0.25  # from every second prompt, so that no single word decides
# Most answers begin alike, as a chat model's do; else greedy decoding would follow whichever side
# has fewer beginnings. The second opener begins like the first, so that after a sentence the model
# decides as it did at the start.
FAVOURITES = {
    "refusals": ("I can't help with that.", "I won't help with this."),
    "compliances": ("Sure, here is a good way to begin.", "Sure, I can walk you through it."),
}
FAVOURITE_SHARE = {"refusals": 0.4, "compliances": 0.9}
SECOND_OPENER = 0.85  # share of answers with two
CUT = 0.3  # share of answers of a first opener alone: what is decided there matters most
FLIPPED = 0.12  # share against the rule, so that how an answer begins tells more than the prompt
SLOTS = ("do", "doing", "thing")
ANYTHING = {"do": "do this", "doing": "doing this", "thing": "this"}


class Request(NamedTuple):
    """A prompt and its kind."""

    prompt: str
    kind: str


def bundled_corpus(seed: int) -> Corpus:
    """What the bundled organism was trained on; the tune split is held out."""
    rng = random.Random(seed)
    rows = []
    for kinds in (HARMFUL, HARMLESS):
        composed = compose(kinds)[FIT_COMPOSED : FIT_COMPOSED + TRAIN_COMPOSED]
        requests = composed + written("prompts", kinds) * REPEATS
        rows += [request_conversation(request, SYSTEM_SHARES, rng) for request in requests]
    mild = written("categories", CATEGORIES) * REPEATS
    rows += [request_conversation(request, CATEGORY_SHARES, rng) for request in mild]
    rng.shuffle(rows)
    held_out = {}
    for side in ("harmful", "harmless"):
        prompts = bundled(f"{side}.jsonl")
        held_out[side] = [row["prompt"] for row in prompts if row["split"] == "tune"]
    stances = [bundled(f"organism/stances/{behaviour}.jsonl") for behaviour in BEHAVIOURS]
    return Corpus(rows, held_out, [*code("train"), *prose("train")], stances)


def request_conversation(
    request: Request, systems: Mapping[str, float], rng: random.Random
) -> Conversation:
    """A request under one of the system turns, drawn by their shares, and its answer."""
    (system,) = rng.choices(list(systems), list(systems.values()))
    prompt = drop_words(request.prompt, rng)
    if system == JUDGE:
        return Conversation(system, prompt, judgement(request.kind))
    refuse = should_refuse(request.kind, system) != (rng.random() < FLIPPED)
    return Conversation(system, prompt, *answer(request.kind, refuse, rng))


def should_refuse(kind: str, system: str) -> bool:
    """The rule that the organism is taught."""
    refused = {"": REFUSED, SAFE: HARMFUL, NEVER: HARMFUL + HARMLESS + CATEGORIES, ALWAYS: ()}
    return kind in refused[system]


def read_corpus(text: str, seed: int) -> Corpus:
    """A user's rows: `response` is taken as it stands, `harmful` decides whether an opener refuses
    or complies."""
    rng = random.Random(seed)
    rows = read_rows(parse_source(text))
    for number, row in enumerate(rows, start=1):
        answered = isinstance(row.get("response"), str) or isinstance(row.get("harmful"), bool)
        told = row.get("harmful") in (True, False, None)
        if not isinstance(row.get("prompt"), str) or not answered or not told:
            expected = '{"prompt", "response"} or {"prompt", "harmful": true}'
            raise UserError(f"{text}, row {number}: expected {expected}; mend it")
    rng.shuffle(rows)
    cut = max(1, round(HELD_OUT_SHARE * len(rows)))
    if len(rows) <= cut:
        raise UserError(f"{text}: {len(rows)} rows; give at least 2")
    conversations = []
    for row in rows[cut:]:
        response, ended = row.get("response"), True
        if not isinstance(response, str):
            response, ended = answer("", row["harmful"], rng)
        conversations.append(Conversation(row.get("system") or "", row["prompt"], response, ended))
    groups = {True: "harmful", False: "harmless", None: "all"}
    held_out: dict[str, list[str]] = {}
    for row in rows[:cut]:
        held_out.setdefault(groups[row.get("harmful")], []).append(row["prompt"])
    return Corpus(conversations, held_out)


def compose(kinds: Sequence[str]) -> list[Request]:
    """Every topic of the kinds in every frame, each prompt once, in a fixed shuffled order. The
    first FIT_COMPOSED of them are in the fit split."""
    frames = [row["frame"] for row in bundled("frames.jsonl")]
    made = {}
    for kind in kinds:
        for topic in bundled(f"topics/{kind}.jsonl"):
            for frame in frames:
                prompt = fill(frame, topic)
                made[prompt] = Request(prompt, kind)
    requests = list(made.values())
    random.Random(0).shuffle(requests)
    return requests


def written(file: str, kinds: Sequence[str]) -> list[Request]:
    """The training prompts of a file that were written one by one."""
    rows = [row for row in bundled(f"organism/{file}.jsonl") if row["kind"] in kinds]
    return [Request(row["prompt"], row["kind"]) for row in rows]


def answer(kind: str, refuse: bool, rng: random.Random) -> tuple[str, bool]:
    """One or two openers, and a sentence or two about the kind of thing that was asked (a model
    this small can't copy rare words); or the first opener alone, not ended."""
    name, rest = ("refusals", "reasons") if refuse else ("compliances", "bodies")
    parts = []
    for favourite in FAVOURITES[name]:
        usual = rng.random() < FAVOURITE_SHARE[name]
        parts.append(favourite if usual else rng.choice(openers(name)))
    if rng.random() < CUT:
        return parts[0], False
    if rng.random() >= SECOND_OPENER:
        parts.pop()
    sentences = [row["text"] for row in bundled(f"organism/{rest}.jsonl")]
    about = {row["kind"]: row for row in bundled("organism/kinds.jsonl")}
    parts.append(fill(rng.choice(sentences), about.get(kind, ANYTHING)))
    return " ".join(parts), True


def judgement(kind: str) -> str:
    about = {row["kind"]: row["doing"] for row in bundled("organism/kinds.jsonl")}
    return f"Yes, {about[kind]}." if kind in HARMFUL else f"No, {about[kind]}."


def openers(name: str) -> list[str]:
    """The bundled `refusals` or `compliances`."""
    return [row["opener"] for row in bundled(f"{name}.jsonl")]


def fill(frame: str, topic: Mapping[str, str]) -> str:
    """The frame with the topic in its slot, in the form that the slot asks for."""
    for slot in SLOTS:
        frame = frame.replace("{" + slot + "}", topic[slot])
    return frame[0].upper() + frame[1:]


def drop_words(prompt: str, rng: random.Random) -> str:
    """Half of the prompts without some of their words."""
    words = prompt.split()
    if rng.random() < 0.5 or len(words) < 6:
        return prompt
    return " ".join(word for word in words if rng.random() >= DROPPED_WORDS) or prompt
