"""The standardisation score, against cases worked out by hand, and its interval."""

from __future__ import annotations

import numpy as np
import pytest

from nnsteer.errors import UserError
from nnsteer.measure.standardisation import Curve, by_method, curve, score, standardisation
from nnsteer.study.rows import Row

ALPHAS = (0.0, 0.5, 1.0)


def flat(*rates, answered=None, n=10):
    """A side whose prompts all have these rates."""
    return Curve(np.tile(rates, (n, 1)), np.full(n, 1 - rates[0] if answered is None else answered))


@pytest.mark.parametrize(
    ("harmful", "harmless", "expected"),
    [
        (flat(0, 0.5, 1), flat(0, 0.5, 1), 1.0),
        (flat(0, 1, 1), flat(0, 0, 1), 0.5),  # apart by a triangle of area 1/2; both ends are right
        (
            flat(0.1, 0.8, 1),
            flat(0, 0.2, 0.9),
            (1 - (0.1 / 4 + 0.6 / 2 + 0.1 / 4)) * (0.9 + 1 + 1 + 0.9) / 4,
        ),
        (flat(0, 0, 0), flat(0, 0, 0), 0.5),  # ablation at its best: alpha does nothing
        (flat(1, 1, 1), flat(1, 1, 1), 0.5),
        (flat(1, 1, 1), flat(0, 0, 0), 0.0),  # refuses the harmful alone, whatever alpha is
        (flat(0.4, 0.4, 0.4), flat(0, 0, 0), 0.6 * (0.6 + 0.4 + 1 + 0) / 4),
        (flat(0, 0, 0, answered=0), flat(0, 0, 0, answered=0), 0.0),  # nothing but broken text
        (
            flat(0, 0.5, 1, answered=0.5),
            flat(0, 0.5, 1),
            0.875,
        ),  # half of the harmful answers at alpha 0 are broken
        (flat(1, 0.5, 0), flat(1, 0.5, 0), 0.0),  # the wrong way round
    ],
)
def test_hand_worked_scores(harmful, harmless, expected):
    assert score(ALPHAS, harmful, harmless) == pytest.approx(expected)


def test_alphas_outside_0_and_1_and_their_order_do_not_matter_and_unequal_steps_are_weighed():
    a, b = flat(0.2, 0.6, 1), flat(0, 0.5, 0.9)
    wide = [1.0, -0.5, 0.5, 0.0, 1.5]
    more = [
        Curve(np.insert(side.refused[:, [2, 0, 1]], [1, 3], 0.77, axis=1), side.answered)
        for side in (a, b)
    ]
    more = [Curve(side.refused[:, [0, 1, 3, 2, 4]], side.answered) for side in more]
    assert score(wide, *more) == pytest.approx(score(ALPHAS, a, b))
    uneven = score((0.0, 0.25, 1.0), flat(0, 0.4, 1), flat(0, 0, 1))
    assert uneven == pytest.approx(1 - (0.4 * 0.25 / 2 + 0.4 * 0.75 / 2))


def test_an_interval_holds_the_score_shrinks_with_the_prompts_and_is_a_point_without_variance():
    exact = standardisation(ALPHAS, flat(0, 0.5, 1), flat(0, 0.5, 1))
    assert (exact.low, exact.value, exact.high, exact.n) == (1.0, 1.0, 1.0, 20)
    rng = np.random.default_rng(0)

    def side(n, rates):
        refused = (rng.random((n, 3)) < rates).astype(float)
        return Curve(refused, 1 - refused[:, 0])

    found = {
        n: standardisation(ALPHAS, side(n, [0.1, 0.6, 0.9]), side(n, [0.0, 0.2, 0.8]))
        for n in (20, 400)
    }
    assert all(e.low < e.value <= e.high for e in found.values())
    assert found[400].high - found[400].low < 0.4 * (found[20].high - found[20].low)
    same = side(40, [0.0, 0.5, 1.0])
    at_its_best = standardisation(ALPHAS, same, same)
    assert at_its_best.value == 1.0 == at_its_best.high and at_its_best.low < 0.97


def test_the_interval_covers_the_true_score():
    """Of 60 repetitions of an experiment whose true score is known, most intervals hold it."""
    rng, true = np.random.default_rng(1), (1 - 0.2 * 0.75) * (0.9 + 0.9 + 0.95 + 0.75) / 4
    rates = ([0.1, 0.8, 0.95], [0.1, 0.6, 0.75])

    def side(p):
        refused = (rng.random((60, 3)) < p).astype(float)
        return Curve(refused, 1 - refused[:, 0])

    found = [standardisation(ALPHAS, side(rates[0]), side(rates[1]), seed) for seed in range(60)]
    assert sum(e.low <= true <= e.high for e in found) >= 50


def test_0_and_1_must_be_among_the_alphas():
    with pytest.raises(UserError, match=r"--alphas 0, 0\.5: 0 and 1 must be among them"):
        standardisation((0.0, 0.5), flat(0, 1), flat(0, 1))


def test_curves_are_shares_of_each_prompts_judged_samples():
    def row(prompt, alpha, sample, refused, broken=False, side="harmful"):
        return Row(
            f"ace {alpha}", side, "", prompt, sample, {"refusal": refused, "broken": float(broken)}
        )

    rows = [
        row("p", 0.0, 0, 0.0), row("p", 0.0, 1, 1.0, broken=True),
        row("p", 1.0, 0, 1.0), row("p", 1.0, 1, None),
        row("q", 0.0, 0, 1.0), row("q", 1.0, 0, 1.0), row("q", 1.0, 1, 0.0),
        row("failed", 0.0, 0, 0.0), row("failed", 1.0, 0, None),
        row("other", 0.0, 0, 1.0, side="harmless"), row("other", 1.0, 0, 1.0, side="harmless"),
    ]  # fmt: skip
    axes = {f"ace {alpha}": {"method": "ace", "alpha": alpha} for alpha in (0.0, 0.5, 1.0)}
    answers = by_method(rows, axes)
    assert {method: list(cells) for method, cells in answers.items()} == {"ace": [0.0, 1.0]}
    found = curve(answers["ace"], "harmful")
    assert found.refused.tolist() == [[0.0, 1.0], [1.0, 0.5]]
    assert found.answered.tolist() == [0.5, 0.0]


def test_one_prompt_a_side_has_a_score_and_no_interval():
    one = Curve(np.array([[0.0, 1.0]]), np.array([1.0]))
    found = standardisation([0.0, 1.0], one, one)
    assert found.value == 1.0 and np.isnan(found.low) and found.n == 2
