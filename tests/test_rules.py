"""Rules as text and as Python are the same data, and mistakes are shown where they are."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from nnsteer.errors import UserError
from nnsteer.fit import random_like
from nnsteer.model.lower import postfix
from nnsteer.program import rules
from nnsteer.program.condition import AllOf, AnyOf, Condition, holds, leaves
from nnsteer.program.program import add
from nnsteer.program.site import Site

from conftest import HARMFUL, HARMLESS, MIXED


@pytest.fixture
def named(directions):
    return {
        name: Condition(directions[Site(1)], i / 10)
        for i, name in enumerate(("harmful", "legal", "hate"))
    }


@pytest.fixture
def behaviours(directions):
    return {
        "refuse": add({Site(2): directions[Site(2)]}),
        "comply": add({Site(3): directions[Site(3)]}, -1.0),
    }


def when(rule, named, behaviours):
    (step,) = rules.program([rule], named, behaviours).steps
    return step.when


def test_text_is_the_same_as_python(named, behaviours):
    harmful, legal, hate = named.values()
    table = {
        "if harmful then refuse": harmful,
        "if not harmful then refuse": ~harmful,
        "if harmful and not legal then refuse": harmful & ~legal,
        "if (harmful and not legal) or hate then refuse": (harmful & ~legal) | hate,
        "if harmful or legal and hate then refuse": harmful | (legal & hate),
        "if harmful and legal or hate then refuse": (harmful & legal) | hate,
        "if not (harmful or hate) then refuse": ~harmful & ~hate,
        "IF harmful AND\n  NOT legal THEN refuse": harmful & ~legal,
        "if C1 or c3 then B1": harmful | hate,
    }
    for rule, want in table.items():
        assert when(rule, named, behaviours) == want, rule


@pytest.mark.parametrize("verdicts", product([False, True], repeat=3))
def test_combinations_hold_as_pythons_own_words_do(named, verdicts):
    a, b, c = verdicts
    known = dict(zip(named.values(), verdicts, strict=True)) | {
        ~k: not v for k, v in zip(named.values(), verdicts, strict=True)
    }
    harmful, legal, hate = named.values()
    assert holds((harmful & ~legal) | hate, known) == ((a and not b) or c)
    assert holds(~((harmful & ~legal) | hate), known) == (not ((a and not b) or c))
    assert holds(harmful & (legal | hate), known) == (a and (b or c))


def test_several_rules_and_behaviours(named, behaviours):
    program = rules.program(
        ["if harmful then refuse", "if legal then comply, refuse"], named, behaviours
    )
    refuse, comply = program.steps
    assert refuse.when == named["harmful"] | named["legal"]  # applied once, not once for each rule
    assert comply.when == named["legal"]


def test_not_goes_down_to_the_conditions_and_twice_is_nothing(named):
    harmful, legal, hate = named.values()
    both = ~(harmful & (legal | hate))
    assert both == AnyOf((~harmful, AllOf((~legal, ~hate))))
    assert ~both == harmful & (legal | hate)
    assert list(leaves(both)) == [~harmful, ~legal, ~hate]
    assert postfix(harmful & (legal | hate), list(named.values())) == (0, 1, 2, "or", "and")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("harmful then refuse", "expected `if CONDITION then BEHAVIOUR`"),
        ("if harmful", "expected `if CONDITION then BEHAVIOUR`"),
        ("if harmful and then refuse", r"character \d+ .*: expected names, and, or, not and parentheses"),
        ("if (harmful or legal then refuse", "expected names, and, or, not and parentheses"),
        ("if harmfull then refuse", r"character 4 \(at 'harmfull then .*no condition 'harmfull', there is harmful, legal"),
        ("if harmful and ilegal then refuse", r"character 16 .*no condition 'ilegal'"),
        ("if C4 then refuse", "no condition 'C4'"),
        ("if harmful then refus", r"character 17 .*no behaviour 'refus', there is refuse, comply"),
        ("if harmful > 3 then refuse", r"character 4 .*expected a condition's name"),
        ("if harmful then ", "no behaviour ''"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_place(named, behaviours, rule, message):
    with pytest.raises(UserError, match=message) as caught:
        rules.program([rule], named, behaviours)
    assert "\n" not in str(caught.value)


def test_a_rule_of_seven_conditions_over_a_mixed_batch_equals_row_by_row(runner, directions):
    """64 rows in one batch, each with its own verdicts."""
    subjects = ["bicycle", "bank", "poem", "star", "map", "passport", "bread", "rain"]
    prompts = [
        f"{prompt} {subject}"
        for prompt in (*HARMFUL, *HARMLESS, *MIXED[2:4])
        for subject in subjects
    ]
    assert len(prompts) == 64
    conditions = {}
    for i in range(7):
        free = Condition(
            random_like(directions, i)[Site(i % 3)],
            0.0,
            score=("cosine", "cast", "projection")[i % 3],
        )
        scores = runner.scores(prompts, [free])[0]
        conditions[f"c{i}"] = replace(free, threshold=scores.sort().values[28:36].mean().item())
    rule = "if (c0 and not c1) or (c2 and (c3 or not c4)) or (c5 and c6 and not c0) then refuse"
    program = rules.program(
        [rule], conditions, {"refuse": add({Site(3): directions[Site(3)]}, 2.0)}
    )
    together = runner.with_batch_size(64).generate(prompts, program, 6)
    apart = [runner.generate([prompt], program, 6)[0] for prompt in prompts]
    assert [c.ids for c in together] == [c.ids for c in apart]
    assert [c.fired for c in together] == [c.fired for c in apart]
    acted = [
        holds(program.steps[0].when, dict(zip(program.conditions, c.fired, strict=True)))
        for c in together
    ]
    assert 8 < sum(acted) < 56
    plain = runner.with_batch_size(64).generate(prompts, max_new_tokens=6)
    assert all(a.ids == b.ids for a, b, yes in zip(together, plain, acted, strict=True) if not yes)
