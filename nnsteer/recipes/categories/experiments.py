"""The rules of each experiment, and the prompts that they are tried on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    """Every experiment's sets of rules. The first category is the ordinary one, so no domain; `kinds`
    of harmful prompts and the categories in `refused` are refused unsteered."""
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


@dataclass(frozen=True)
class Steering:
    """What rules are made of: conditions and the two behaviours."""

    categories: Mapping[str, Condition]
    kinds: Mapping[str, Condition]
    refuse: Program
    comply: Program

    def variant(self, experiment: str, texts: Rules) -> Variant:
        """Some rules. A name that stands for a category and for a kind is the kind's where refusal is
        removed."""
        if experiment == "removing":
            conditions = {**self.categories, **self.kinds}
        else:
            conditions = {**self.kinds, **self.categories}
        behaviours = {"refuse": self.refuse, "comply": self.comply}
        return Variant("; ".join(texts), rules.program(texts, conditions, behaviours))


def variants(
    steering: Steering, chosen: Mapping[str, Sequence[Rules]]
) -> dict[str, list[Variant]]:
    """What each experiment asks: its rules; always answering, beside those that answer; and each rule
    that works beside another, alone."""
    made = {
        experiment: [steering.variant(experiment, texts) for texts in of_experiment]
        for experiment, of_experiment in chosen.items()
    }
    beside = set(chain(*chosen["together"]))
    alone = [rule for rule in made["adding"] + made["removing"] if rule.name in beside]
    made["together"] += alone
    for experiment in ("removing", "answering"):
        if made[experiment]:
            made[experiment].append(Variant("always comply", steering.comply))
    refusing = [Variant("always refuse", steering.refuse)]
    return {"before": [UNSTEERED], "refusing": refusing, **made}


def told(run: Run, domain: str) -> Run:
    """The run in which the model is told in words what `if not DOMAIN then refuse` makes it do."""
    chat = replace(run.runner.chat, system=INSTRUCTION.format(domain=domain))
    return replace(run, runner=replace(run.runner, chat=chat))
