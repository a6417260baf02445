"""The rules of each experiment, and the prompts that each is tried on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise

from nnsteer import fit
from nnsteer.measure.answers import Asked
from nnsteer.program import rules
from nnsteer.program.condition import Condition
from nnsteer.program.direction import Directions
from nnsteer.program.op import Add
from nnsteer.program.program import Program, add
from nnsteer.program.span import Where
from nnsteer.texts.source import Prompt

Rules = tuple[str, ...]
SETS = {  # the prompts of each experiment
    "adding": ("seen",), "either": ("seen",), "constraining": ("seen", "unseen"),
    "removing": ("harmful",), "answering": ("seen",), "together": ("seen", "harmful"),
}  # fmt: skip
TOGETHER = 2  # pairs of rules, one that adds and one that removes


def experiments(categories: Sequence[str], kinds: Sequence[str], refused: Sequence[str]) -> dict[str, list[Rules]]:
    """Every experiment's sets of rules. The first category is the ordinary one, so no domain; `kinds` of harmful prompts and the
    categories in `refused` are refused unsteered."""
    domains = categories[1:]
    free = [kind for kind in kinds if kind not in categories]
    return {
        "adding": [(f"if {category} then refuse",) for category in categories],
        "either": [(f"if {one} or {other} then refuse",) for one, other in pairwise(domains)],
        "constraining": [(f"if not {domain} then refuse",) for domain in domains],
        "removing": [(f"if {kind} then comply",) for kind in kinds],
        "answering": [(f"if {category} then comply",) for category in refused],
        "together": [
            rules
            for domain, kind in list(zip(domains[::-1], free, strict=False))[:TOGETHER]
            for rules in (
                (f"if {domain} then refuse", f"if {kind} then comply"),
                (f"if {domain} and not {kind} then refuse", f"if {kind} then comply"),  # never both
            )
        ],
    }


@dataclass(frozen=True)
class Steering:
    """What rules are made of: conditions and the two behaviours."""

    categories: Mapping[str, Condition]
    kinds: Mapping[str, Condition]
    refuse: Program
    comply: Program

    def program(self, experiment: str, texts: Rules) -> Program:
        """The program of some rules. A name that stands for a category and for a kind is the kind's where refusal is removed."""
        first, second = (self.categories, self.kinds) if experiment == "removing" else (self.kinds, self.categories)
        return rules.program(texts, {**first, **second}, {"refuse": self.refuse, "comply": self.comply})


def variants(steering: Steering, chosen: Mapping[str, Sequence[Rules]]) -> dict[str, tuple[Program, set[str]]]:
    """Every program with the sets it is asked on, by its rules. Each rule that works beside another is tried alone on the same
    prompts."""
    made: dict[str, tuple[Program, set[str]]] = {
        "not steered": (Program(), {"seen", "unseen", "harmful"}),
        "always refuse": (steering.refuse, {"seen", "unseen"}),
        "always comply": (steering.comply, {"harmful"} | ({"seen"} if chosen["answering"] else set())),
    }
    alone = {f"if {text.split()[1]} then {text.split()[-1]}": set(SETS["together"]) for s in chosen["together"] for text in s}
    for experiment, sets in chosen.items():
        for texts in sets:
            name = "; ".join(texts)
            made[name] = (steering.program(experiment, texts), set(SETS[experiment]) | alone.get(name, set()))
    return made


def parts(additions: Program) -> tuple[Directions, float, Where]:
    """The directions, strength and span of a program that `add` made."""
    steps = [(step.op, step.span) for step in additions.steps if isinstance(step.op, Add)]
    return Directions({op.direction.site: op.direction for op, _ in steps}), steps[0][0].strength, steps[0][1]


def controls(additions: Program, seed: int, draws: int) -> list[Program]:
    """The same additions with random directions of the same lengths."""
    directions, strength, span = parts(additions)
    return [add(fit.random_like(directions, seed + i), strength, span) for i in range(draws)]


def questions(
    made: Mapping[str, tuple[Program, set[str]]], sets: Mapping[str, Sequence[Prompt]], randoms: Mapping[str, Sequence[Program]]
) -> Iterator[Asked]:
    """Every program on each prompt of its sets; and on each set's prompts its random controls in turn."""
    for name, (program, asked_on) in made.items():
        for side in sets:
            if side in asked_on:
                yield from (Asked(name, side, prompt, program) for prompt in sets[side])
    for side, draws in randoms.items():
        for prompt, program in zip(sets[side], cycle(draws), strict=False):
            yield Asked("random direction", side, prompt, program)
