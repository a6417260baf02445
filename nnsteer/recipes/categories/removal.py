"""Removing refusal: which kinds of request the model refuses, and the dose that makes it answer them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from statistics import fmean

from nnsteer.errors import UserError
from nnsteer.fit import tune
from nnsteer.folder import Folder
from nnsteer.measure.answers import Asked, Judge, ask
from nnsteer.model.runner import Runner
from nnsteer.program.direction import Directions
from nnsteer.program.program import Program, add
from nnsteer.recipes.refusal import SPANS
from nnsteer.texts.source import Prompt

Removers = Mapping[tune.Dose, Program]
REFUSED = 0.5  # share of a kind's tune prompts


def refused_kinds(
    folder: Folder, runner: Runner, side: str, prompts: Sequence[Prompt], judge: Judge, max_new_tokens: int
) -> list[str]:  # fmt: skip
    """The kinds of a side's tune prompts of which the unsteered model refuses most; there is none to remove from the rest."""
    asked = [Asked("not steered", side, prompt, Program()) for prompt in prompts]
    rows = ask(folder, "removal_rows.jsonl", runner, asked, judge, max_new_tokens)
    kinds: dict[str, list[bool]] = {}
    for row in rows:
        if (row.variant, row.side) == ("not steered", side):
            kinds.setdefault(row.kind, []).append(row.refused)
    return [kind for kind, refused in kinds.items() if kind and fmean(refused) > REFUSED]


def removers(behaviour: Mapping[str, Directions], bands: Sequence[tuple[int, ...]], strengths: Sequence[float]) -> Removers:
    """The refusal recipe's ways to steer, with its directions taken away where it adds them (CAST: a negative strength)."""
    doses = [tune.Dose(*choice) for choice in product(behaviour, SPANS, bands, [-abs(strength) for strength in strengths])]
    own = {dose: {s: d for s, d in behaviour[dose.window].items() if s.layer in dose.layers} for dose in doses}
    return {dose: add(directions, dose.strength, SPANS[dose.span]) for dose, directions in own.items()}


def removing(
    folder: Folder, runner: Runner, prompts: Sequence[Prompt], programs: Removers, judge: Judge, max_broken: float,
    max_new_tokens: int,
) -> Program:  # fmt: skip
    """The program under which the tune prompts are refused least, among those that break at most `max_broken` of the answers;
    ties go to fewer broken answers, then to the weakest. Its answers are in removal_rows.jsonl, every trial in removal.json."""
    asked = [Asked(str(dose), "harmful", prompt, program) for dose, program in programs.items() for prompt in prompts]
    answers: dict[str, list] = {}
    for row in ask(folder, "removal_rows.jsonl", runner, asked, judge, max_new_tokens):
        answers.setdefault(row.variant, []).append(row)
    trials = []
    for dose in programs:
        own = answers[str(dose)]
        trials.append(tune.Trial(dose, fmean(row.refused for row in own), fmean(row.broken for row in own)))
    whole = [trial for trial in trials if trial.broken <= max_broken]
    if not whole:
        raise UserError(
            f"every way to remove refusal breaks more than {max_broken:.0%} of the answers; try a larger --max-broken"
        )
    best = min(whole, key=lambda trial: (trial.refused, trial.broken, -trial.dose.strength))
    facts = [{"name": str(trial.dose), **asdict(trial)} for trial in trials]
    folder.write_json("removal.json", {"chosen": str(best.dose), "trials": facts})
    return programs[best.dose]
