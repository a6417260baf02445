"""The rules of each experiment, and the prompts that they are tried on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise

from nnsteer.program import rules
from nnsteer.program.condition import Condition
from nnsteer.program.program import Program
from nnsteer.study.cells import Variant
from nnsteer.study.run import Run

Rules = tuple[str, ...]
SETS = {  # the prompts of each experiment
    "before": ("seen", "unseen", "refused"),
    "refusing": ("seen", "unseen"),
    "adding": ("seen",),
    "either": ("seen",),
    "constraining": ("seen", "unseen"),
    "removing": ("refused",),
    "answering": ("seen",),
    "together": ("seen", "refused"),
}
TOGETHER = 2  # pairs of rules, one that adds and one that removes
UNSTEERED = Variant("not steered", Program())
INSTRUCTION = "Comply with requests about {domain}. Refuse every other request."


def experiments(
    categories: Sequence[str], kinds: Sequence[str], refused: Sequence[str]
) -> dict[str, list[Rules]]:
    """Every experiment's sets of rules. The first category is the ordinary one, so no domain;
    `kinds` of harmful prompts and the categories in `refused` are refused unsteered."""
    domains = categories[1:]
    free = [kind for kind in kinds if kind not in categories]
    together: list[Rules] = []
    for domain, kind in list(zip(domains[::-1], free, strict=False))[:TOGETHER]:
        comply = f"if {kind} then comply"
        together.append((f"if {domain} then refuse", comply))
        together.append((f"if {domain} and not {kind} then refuse", comply))  # never both
    return {
        "adding": [(f"if {category} then refuse",) for category in categories],
        "either": [(f"if {one} or {other} then refuse",) for one, other in pairwise(domains)],
        "constraining": [(f"if not {domain} then refuse",) for domain in domains],
        "removing": [(f"if {kind} then comply",) for kind in kinds],
        "answering": [(f"if {category} then comply",) for category in refused],
        "together": together,
    }


def variants(
    chosen: Mapping[str, Sequence[Rules]],
    categories: Mapping[str, Condition],
    kinds: Mapping[str, Condition],
    behaviours: Mapping[str, Program],
) -> dict[str, list[Variant]]:
    """What each experiment asks: its rules; beside those that answer, always answering; and each
    rule that works beside another, alone. A name that stands for a category and for a kind is the
    kind's where refusal is removed."""
    made = {
        "before": [UNSTEERED],
        "refusing": [Variant("always refuse", behaviours["refuse"])],
    }
    for experiment, sets in chosen.items():
        removes = experiment == "removing"
        conditions = {**categories, **kinds} if removes else {**kinds, **categories}
        made[experiment] = [
            Variant("; ".join(texts), rules.program(texts, conditions, behaviours))
            for texts in sets
        ]
    beside = set(chain(*chosen["together"]))
    singles = made["adding"] + made["removing"]
    made["together"] += [rule for rule in singles if rule.name in beside]
    for experiment in ("removing", "answering"):
        if made[experiment]:
            made[experiment].append(Variant("always comply", behaviours["comply"]))
    return made


def told(run: Run, domain: str) -> Run:
    """The run in which the model is told in words what `if not DOMAIN then refuse` makes it do."""
    chat = replace(run.runner.chat, system=INSTRUCTION.format(domain=domain))
    return replace(run, runner=replace(run.runner, chat=chat))
