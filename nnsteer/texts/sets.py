"""Prompts that are reported on together."""

from __future__ import annotations

from dataclasses import dataclass

from nnsteer.texts.source import Prompt


@dataclass(frozen=True)
class PromptSet:
    """A set of prompts under a name."""

    name: str
    prompts: tuple[Prompt, ...]
