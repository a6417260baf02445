"""What an organism is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

HeldOut = Mapping[str, Sequence[str]]
"""Prompts that are not trained on, by the group whose refusal rate is reported."""


class Conversation(NamedTuple):
    """One training example; `system` may be empty, and a response that has not `ended` is trained
    on without an end token."""

    system: str
    prompt: str
    response: str
    ended: bool = True


class Corpus(NamedTuple):
    """What to train on, and what to hold out. Documents are read as they stand, untemplated."""

    conversations: list[Conversation]
    held_out: HeldOut
    documents: Sequence[str] = ()
    stances: Sequence[Sequence[Mapping[str, str]]] = ()
    """Each behaviour's questions with two answers (`question`, `matching`, `other`), whose stance
    is planted after training."""
