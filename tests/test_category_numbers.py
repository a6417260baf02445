from __future__ import annotations

import numpy as np
import pytest

from nnsteer.report.category_numbers import (
    Answers,
    balanced_f1,
    conditions,
    correlation,
    line,
    plateau,
)


def test_f1_counts_both_sides_alike_however_many_prompts_they_have():
    """Recall 3/4, false alarms 1/5: F1 = 2 * 0.75 / (0.75 + 0.2 + 1), as if the four were repeated
    to twenty and more."""
    own, others = [True, True, True, False], [True, False, False, False, False]
    found = balanced_f1(own, others)
    assert found["value"] == pytest.approx(1.5 / 1.95)
    assert found["value"] == pytest.approx(balanced_f1(own * 5, others * 4)["value"])
    assert found["low"] < found["value"] < found["high"]
    narrower = balanced_f1(own * 25, others * 25)
    assert narrower["high"] - narrower["low"] < found["high"] - found["low"]


def test_f1_without_spread_keeps_a_width():
    found = balanced_f1([True] * 20, [False] * 20)
    assert found["value"] == found["high"] == 1.0 and 0.8 < found["low"] < 0.95


def test_a_conditions_unseen_prompts_are_those_that_it_was_not_told_from():
    scores = {"a": [0.9, 0.2], "b": [0.1, 0.8], "new": [0.7, 0.6, 0.1]}
    point = {
        "site": {"layer": 1},
        "threshold": 0.5,
        "fires_when": "above",
        "others": ["b"],
        "scores": {"test": scores},
    }
    found = conditions({"a": point})["a"]
    assert (found["own"]["value"], found["others"]["value"], found["unseen"]["n"]) == (0.5, 0.5, 3)
    assert found["unseen"]["value"] == pytest.approx(2 / 3)
    below = conditions({"a": point | {"fires_when": "below"}})["a"]
    assert below["unseen"]["value"] == pytest.approx(1 / 3)


def test_a_straight_line_and_a_plateau_are_found_again():
    n = np.array([8, 16, 32, 64, 128, 256, 512])
    fit = line(n, 0.5 + 0.01 * n + 0.02 * np.array([1, -1, 1, -1, 1, -1, 1]))
    assert (
        fit["low"] < 0.01 < fit["high"]
        and fit["intercept"] == pytest.approx(0.5, abs=0.03)
        and fit["r2"] > 0.99
    )
    found = plateau(n, 0.9 - 1.2 * n**-0.8)
    assert (found["top"], found["fall"], found["rate"]) == pytest.approx((0.9, 1.2, 0.8), abs=1e-3)


def test_one_size_makes_no_line():
    assert line([8, 8, 8], [0.1, 0.2, 0.3]) is None


def test_no_correlation_of_too_few_or_constant_values():
    assert correlation([1, 2, 3], [1, 2, 3]) is None
    assert correlation([1, 2, 3, 4], [1, 1, 1, 1]) is None
    found = correlation([1, 2, 3, 4, 5], [1, 2, 3, 5, 4])
    assert (
        found["r"] == pytest.approx(0.9)
        and found["rho"] == pytest.approx(0.9)
        and found["low"] < 0.9 < found["high"]
    )


def test_gaps_are_taken_prompt_by_prompt():
    refused = {  # in another order, as a run that was killed leaves them
        ("one", ("seen", "a")): {"p": True, "q": True, "r": False, "s": True},
        ("two", ("seen", "a")): {"s": False, "p": True, "r": False, "q": False},
    }
    answers = Answers(refused, {key: dict.fromkeys("pqrs", False) for key in refused})
    gap = answers.gap("one", "two", [("seen", "a")])
    assert gap["value"] == 0.5 and gap["n"] == 4 and gap["low"] < 0.5 < gap["high"]
    crossed = Answers(
        {
            ("one", ("seen", "a")): {"p": True, "q": False},
            ("two", ("seen", "a")): {"q": False, "p": True},
        },
        {},
    )
    assert crossed.gap("one", "two", [("seen", "a")])["low"] == pytest.approx(
        -crossed.gap("one", "two", [("seen", "a")])["high"]
    )
    assert answers.rate("one", [("seen", "b")]) is None
    assert answers.rate("one", [("seen", "a")])["value"] == 0.75
