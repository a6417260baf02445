"""Measures by the names that a study's file uses. One from outside is a function without arguments
that makes a measure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from nnsteer import registry
from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.measure.choice import chooses, faulty, load_pairs, margin, matching
from nnsteer.measure.classifier import CAST, REFUSAL, classifier
from nnsteer.measure.divergence import broken, drift, kl
from nnsteer.measure.judge import judge, load_judge
from nnsteer.measure.kinds import AnswerMeasure, Measure, ModelMeasure, ReadingMeasure
from nnsteer.measure.refusal import by_keywords, by_openers, either
from nnsteer.measure.skill import text_loss, top_k
from nnsteer.measure.text import distinct, length


@dataclass(frozen=True)
class Means:
    """What measures are made of."""

    refusals: Sequence[str]
    folder: Folder
    classify: Callable[[str, str], AnswerMeasure]
    """A classifier by source and label, made once."""


PLAIN: Mapping[str, Callable[[Means], Measure]] = {
    "refusal": lambda means: by_openers(means.refusals),
    "keywords": lambda _: by_keywords(),
    "classifier": lambda means: means.classify(CAST, REFUSAL),
    "either": lambda means: either(means.classify(CAST, REFUSAL), by_keywords()),
    "length": lambda _: length(),
    "drift": lambda _: drift(),
    "broken": lambda _: broken(),
    "kl": lambda _: kl(),
    "cross-entropy": lambda _: text_loss(),
}
NUMBERED: Mapping[str, Callable[[int], Measure]] = {"distinct": distinct, "top": top_k}
GIVEN: Mapping[str, tuple[str, Callable[[str, Means], Measure]]] = {
    "classifier": ("MODEL@REVISION[,label=LABEL]", lambda given, means: classified(given, means)),
    "either": (
        "MODEL@REVISION[,label=LABEL]",
        lambda given, means: either(classified(given, means), by_keywords()),
    ),
    "judge": ("FILE.toml", lambda given, means: judge(*load_judge(Path(given)), means.folder)),
    "chooses": ("SOURCE", lambda given, _: chooses(load_pairs(given))),
    "margin": ("SOURCE", lambda given, _: margin(load_pairs(given))),
    "matching": ("SOURCE", lambda given, _: matching(load_pairs(given))),
    "faulty": ("SOURCE", lambda given, _: faulty(load_pairs(given))),
}
GROUP = "nnsteer.measures"
KNOWN = (
    *PLAIN,
    *(f"{name}-N" for name in NUMBERED),
    *(f"{name}:{what}" for name, (what, _) in GIVEN.items()),
)


def measures(
    names: Sequence[str], refusals: Sequence[str], cache_folder: Path
) -> tuple[Measure, ...]:
    """The measures, each under the name that was given. `refusals` are the openers that count as
    refusals; replies of judges are kept in `cache_folder`. Raises UserError for a name that is
    unknown or given twice."""
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise UserError(f"measure {twice[0]}: given {names.count(twice[0])} times; give it once")
    means = Means(refusals, Folder(cache_folder), cache(classifier))
    return tuple(replace(named(name, means), name=name) for name in names)


def named(name: str, means: Means) -> Measure:
    """One measure."""
    stem, _, number = name.rpartition("-")
    kind, _, given = name.partition(":")
    if name in PLAIN:
        return PLAIN[name](means)
    if stem in NUMBERED and number.isdecimal() and int(number) > 0:
        return NUMBERED[stem](int(number))
    if kind in GIVEN and given:
        return GIVEN[kind][1](given, means)
    if kind in (*PLAIN, *NUMBERED, *GIVEN):
        raise UserError(registry.unknown(GROUP, KNOWN, name))
    made = registry.outside(GROUP, KNOWN, name)()
    if not isinstance(made, AnswerMeasure | ReadingMeasure | ModelMeasure):
        raise UserError(
            f"measure {name}: gives {type(made).__name__}; "
            "give a function to an AnswerMeasure, ReadingMeasure or ModelMeasure"
        )
    return made


def classified(given: str, means: Means) -> AnswerMeasure:
    """The classifier of `MODEL@REVISION` or a folder, with `,label=LABEL` where refusals have
    another label there."""
    source, _, label = given.partition(",label=")
    return means.classify(source, label or REFUSAL)
