"""The prompting baseline: the model is told in words what the rule `if not DOMAIN then refuse` makes it do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nnsteer.folder import Folder
from nnsteer.measure.answers import Asked, Judge, ask
from nnsteer.model.runner import Runner
from nnsteer.program.program import Program
from nnsteer.texts.source import Prompt

INSTRUCTION = "Comply with requests about {domain}. Refuse every other request."


def ask_prompted(
    folder: Folder, runner: Runner, domains: Sequence[str], sets: Mapping[str, Sequence[Prompt]], judge: Judge,
    max_new_tokens: int,
) -> None:  # fmt: skip
    """The unsteered answers to all prompts under each domain's system turn, in prompting.jsonl."""
    for domain in domains:
        told = replace(runner, chat=replace(runner.chat, system=INSTRUCTION.format(domain=domain)))
        asked = [Asked(f"told: only {domain}", side, prompt, Program()) for side, own in sets.items() for prompt in own]
        ask(folder, "prompting.jsonl", told, asked, judge, max_new_tokens)
