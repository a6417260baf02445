"""Against scipy, published tables, and studies in which nothing has an effect."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from nnsteer.statistics import (
    bootstrap,
    compare,
    estimate,
    holm,
    mcnemar,
    newcombe,
    sign_flip,
    wilson,
)

RNG = np.random.default_rng


def table(both, only_one, only_other, neither):
    """Paired values with these counts."""
    pairs = [(1, 1)] * both + [(1, 0)] * only_one + [(0, 1)] * only_other + [(0, 0)] * neither
    return np.array(pairs, dtype=float).T


def test_wilson_intervals_are_the_textbooks():
    rate = wilson(10, 20)
    assert (rate.value, rate.n) == (0.5, 20)
    assert rate.low == pytest.approx(0.2993, abs=1e-4) and rate.high == pytest.approx(
        0.7007, abs=1e-4
    )
    z = 1.959964
    assert wilson(0, 250).high == pytest.approx(z**2 / (250 + z**2), rel=1e-4)


@pytest.mark.parametrize(
    ("counts", "low", "high", "p"),
    [
        (
            (1, 1, 7, 12),
            -0.507,
            -0.026,
            0.0703,
        ),  # Fagerland, Lydersen & Laake, Statistics in Medicine 33 (2014): Bentur et al.
        (
            (59, 6, 16, 80),
            -0.1186,
            -0.0046,
            0.0525,
        ),  # the same authors' R package contingencytables: Cavo et al.
    ],
)
def test_paired_rates_are_compared_as_published(counts, low, high, p):
    values, baseline = table(*counts)
    got = compare(values, baseline, binary=True)
    assert (got.low, got.high) == (pytest.approx(low, abs=6e-4), pytest.approx(high, abs=6e-4))
    assert got.p == mcnemar(values, baseline) == pytest.approx(p, abs=1e-4)
    assert got.value == pytest.approx((counts[1] - counts[2]) / sum(counts))


def test_paired_rates_keep_a_width_where_no_pair_or_every_pair_differs():
    same = compare([0.0] * 20, [0.0] * 20, binary=True)
    assert same.p == 1 and same.low == pytest.approx(-same.high) and same.high > 0.1
    every = compare([1.0] * 20, [0.0] * 20, binary=True)
    assert every.p == pytest.approx(2 * 0.5**20) and 0.7 < every.low < 1 and every.high == 1


def test_the_sign_flip_test_is_scipys():
    gaps = RNG(1).normal(0.3, 1, 30)
    theirs = stats.permutation_test(
        (gaps,), np.sum, permutation_type="samples", n_resamples=9999, rng=RNG(2)
    ).pvalue
    assert sign_flip(gaps) == pytest.approx(theirs, abs=0.02)
    few = np.array([1.0, 2.0, 3.0, 4.0])  # sixteen sign patterns, two of them as far
    assert sign_flip(few) == pytest.approx(2 / 16, abs=0.01)


def test_the_bootstrap_finds_the_interval_of_a_mean():
    values = RNG(3).normal(5, 2, 400)
    normal = stats.t.interval(0.95, 399, values.mean(), values.std(ddof=1) / 20)
    assert bootstrap(values) == pytest.approx(normal, abs=0.03)
    assert bootstrap(values) == bootstrap(values)
    assert estimate(values, binary=False).value == pytest.approx(values.mean())


def test_values_all_alike_and_values_alone():
    assert bootstrap(np.zeros(9)) == (0, 0)
    assert all(map(math.isnan, bootstrap(np.ones(1))))


def test_missing_values_are_left_out_with_their_partners():
    nan = math.nan
    assert estimate([1, nan, 0, 1], binary=True) == wilson(2, 3)
    assert compare([1, nan, 0, 1], [0, 1, nan, 0], binary=True) == compare(
        [1, 1], [0, 0], binary=True
    )
    nothing = compare([nan], [1.0], binary=False)
    assert nothing.n == 0 and math.isnan(nothing.p) and estimate([nan], binary=False).n == 0


def test_holm_is_worked_out_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, math.nan, 0.9]) == pytest.approx([1, math.nan, 1], nan_ok=True)
    assert holm([]) == []


def test_where_nothing_has_an_effect_mcnemar_is_right_at_most_as_often_as_it_says():
    """Steered and unsteered answers that agree half of the time more than by chance, 40 prompts,
    4000 studies."""
    rng = RNG(4)
    shared, own, other = rng.random((3, 4000, 40)) < 0.4
    copied = rng.random((4000, 40)) < 0.5
    p = np.array(
        [
            mcnemar(*pair)
            for pair in zip(
                np.where(copied, shared, own), np.where(copied, shared, other), strict=True
            )
        ]
    )
    for level in (0.01, 0.05, 0.1, 0.2):
        assert (p <= level).mean() <= level


def test_where_nothing_has_an_effect_one_bootstrap_interval_in_twenty_misses_zero_and_one_test_in_twenty_finds_something():
    """Skewed values such as a divergence, 60 prompts, 1000 studies."""
    rng = RNG(5)
    results = [compare(*rng.gamma(2, 1, (2, 60)), binary=False) for _ in range(1000)]
    outside = np.mean([r.low > 0 or r.high < 0 for r in results])
    found = np.mean([r.p <= 0.05 for r in results])
    assert 0.035 <= outside <= 0.075 and 0.03 <= found <= 0.07


def test_newcombes_interval_holds_the_true_difference_as_often_as_it_says():
    """Rates of 0.3 and 0.5, 40 prompts, 3000 studies."""
    rng = RNG(6)
    mood = rng.random((3000, 40))  # the same prompt draws both answers
    values, baseline = (mood + rng.normal(0, 0.2, mood.shape) < cut for cut in (0.7, 0.4))
    truth = values.mean() - baseline.mean()
    ends = np.array(
        [newcombe(v.astype(float), b.astype(float)) for v, b in zip(values, baseline, strict=True)]
    )
    assert 0.94 <= ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean() <= 0.99


def test_where_nothing_has_an_effect_one_family_in_twenty_finds_something():
    """Twenty variants: independent tests, and tests that share their baseline as those of a study
    do."""
    p = RNG(7).random((4000, 20))
    found = np.mean([min(holm(family)) <= 0.05 for family in p])
    assert 0.04 <= found <= 0.06
    rng = RNG(8)
    answers = (rng.random((400, 21, 60)) < 0.5).astype(float)
    found = np.mean(
        [min(holm([mcnemar(v, study[0]) for v in study[1:]])) <= 0.05 for study in answers]
    )
    assert found <= 0.05
