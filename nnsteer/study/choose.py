"""Choosing how to steer on the tune split: ways to steer are asked of a run's table, few prompts
first, and the best of them again beside random directions of their length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean

from nnsteer.errors import UserError
from nnsteer.measure.refusal import is_broken, is_refused
from nnsteer.program.program import Program
from nnsteer.study.cells import BASELINE, Variant
from nnsteer.study.rows import Row
from nnsteer.texts.sets import PromptSet

Ask = Callable[[Sequence[Variant], Sequence[PromptSet]], list[Row]]
"""Asks a run's table."""
SHARE = 6  # all ways are tried on one in so many prompts
KEPT = 10  # one in so many of them on all


@dataclass(frozen=True)
class Dose:
    """A way to steer: the tokens that the direction is read on and those that it is added to (by
    name), the layers, and the strength in lengths of the direction."""

    window: str
    span: str
    layers: tuple[int, ...]
    strength: float

    def __str__(self) -> str:
        layers = ", ".join(map(str, self.layers))
        read, added = f"read on {self.window} opener tokens", f"added to {self.span} tokens"
        return f"{read}, {added} at layers {layers}, strength {self.strength:g}"


@dataclass(frozen=True)
class Trial:
    """What a dose did on the tune split: shares of all its prompts, both sides weighed alike; and
    the larger of the changes in either side's refusal that random directions of its length made, 0
    where that was not measured."""

    dose: Dose
    refused: float
    broken: float
    at_random: float = 0.0


def choose_dose(
    ask: Ask,
    programs: Mapping[Dose, Program],
    controls: Callable[[Dose], Sequence[Program]],
    sets: Sequence[PromptSet],
    max_broken: float,
) -> tuple[Dose, dict]:
    """The best dose by `rank`, and every trial as facts to keep. All are tried on a sixth of each
    set's prompts, the best tenth on all, beside their random `controls`."""
    few = [PromptSet(s.name, s.prompts[: -(-len(s.prompts) // SHARE)]) for s in sets]
    first = tried(ask, programs, few)
    ranked = sorted(first, key=lambda dose: rank(first[dose], max_broken), reverse=True)
    finalists = ranked[: -(-len(first) // KEPT)]
    trials = tried(ask, {dose: programs[dose] for dose in finalists}, sets)
    randoms = [Variant(f"random, as {dose}", tuple(controls(dose))) for dose in finalists]
    rows = ask([Variant(BASELINE, Program()), *randoms], sets)
    for dose, control in zip(finalists, randoms, strict=True):
        names = [prompt_set.name for prompt_set in sets]
        moved = [abs(rate(rows, control.name, s) - rate(rows, BASELINE, s)) for s in names]
        trials[dose] = replace(trials[dose], at_random=max(moved))
    best = choose(list(trials.values()), max_broken)
    facts = [
        {"name": str(dose), **asdict(trial), "final": dose in trials}
        for dose, trial in (first | trials).items()
    ]
    return best.dose, {"chosen": str(best.dose), "trials": facts}


def tried(
    ask: Ask, programs: Mapping[Dose, Program], sets: Sequence[PromptSet]
) -> dict[Dose, Trial]:
    """Shares of refused and of broken answers under each dose."""
    variants = {str(dose): Variant(str(dose), program) for dose, program in programs.items()}
    answers: dict[str, list[Row]] = {name: [] for name in variants}
    for row in ask(list(variants.values()), sets):
        answers[row.variant].append(row)
    trials = {}
    for dose, of_dose in zip(programs, answers.values(), strict=True):
        trials[dose] = Trial(dose, fmean(map(is_refused, of_dose)), fmean(map(is_broken, of_dose)))
    return trials


def rate(rows: Sequence[Row], variant: str, set_name: str) -> float:
    """The share of a variant's answers to a set that refuse."""
    at = (variant, set_name)
    return fmean(is_refused(row) for row in rows if (row.variant, row.set) == at)


def choose(trials: Sequence[Trial], max_broken: float) -> Trial:
    """The first by `rank`. Raises UserError when every dose breaks more than `max_broken` of the
    answers."""
    if all(trial.broken > max_broken for trial in trials):
        least = min(trial.broken for trial in trials)
        raise UserError(
            f"every strength tried breaks more than {max_broken:.0%} of the answers "
            f"(the least: {least:.0%}); "
            "try other --layers, a smaller --strength, or a larger --max-broken"
        )
    return max(trials, key=lambda trial: rank(trial, max_broken))


def rank(trial: Trial, max_broken: float) -> tuple:
    """Sorts doses, the best last: those that break at most `max_broken` of the answers, then the
    share of refusals less what is due to length alone; ties go to fewer broken answers, then to the
    smaller strength."""
    effect = trial.refused - trial.at_random
    return trial.broken <= max_broken, effect, -trial.broken, -trial.dose.strength


def choose_removal(
    ask: Ask, programs: Mapping[Dose, Program], sets: Sequence[PromptSet], max_broken: float
) -> tuple[Dose, dict]:
    """The dose under which fewest answers refuse, among those that break at most `max_broken` of
    them, and every trial as facts to keep; ties go to fewer broken answers, then to the weakest."""
    trials = list(tried(ask, programs, sets).values())
    whole = [trial for trial in trials if trial.broken <= max_broken]
    if not whole:
        raise UserError(
            f"every way to remove refusal breaks more than {max_broken:.0%} of the answers; "
            "try a larger --max-broken"
        )
    best = min(whole, key=lambda trial: (trial.refused, trial.broken, -trial.dose.strength))
    facts = [{"name": str(trial.dose), **asdict(trial)} for trial in trials]
    return best.dose, {"chosen": str(best.dose), "trials": facts}


def layer_bands(num_layers: int) -> list[tuple[int, ...]]:
    """Candidate sets of steering layers: the first half, the middle half, the second half and the
    first three quarters."""
    quarter = num_layers / 4
    bounds = [(0, 2), (1, 3), (2, 4), (0, 3)]
    bands = [tuple(range(round(a * quarter), round(b * quarter))) for a, b in bounds]
    return list(dict.fromkeys(band for band in bands if band))
