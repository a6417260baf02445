from __future__ import annotations

import itertools
import random

import pytest
import torch

from nnsteer.errors import UserError
from nnsteer.fit import threshold
from nnsteer.kernels import edits
from nnsteer.program.condition import fires
from nnsteer.program.site import Site
from nnsteer.study import choose as choosing


def brute_force(positive, negative):
    """F1 and false alarms of every cut between two distinct scores and either side, by counting."""
    values = sorted({*positive, *negative})
    cuts = {}
    for low, high in itertools.pairwise(values):
        for side in ("above", "below"):
            fired_p = sum((s >= high) == (side == "above") for s in positive)
            fired_n = sum((s >= high) == (side == "above") for s in negative)
            cuts[low, high, side] = (
                2 * fired_p / (fired_p + fired_n + len(positive)),
                fired_n / len(negative),
            )
    return cuts


@pytest.mark.parametrize("seed", range(30))
def test_C12_the_sweep_equals_brute_force_over_all_cut_points(seed):
    rng = random.Random(seed)
    digits = rng.choice([1, 2, 6])  # few digits: many equal scores
    positive = torch.tensor([round(rng.gauss(0.3, 1), digits) for _ in range(rng.randint(1, 40))])
    negative = torch.tensor([round(rng.gauss(0, 1), digits) for _ in range(rng.randint(1, 40))])
    cuts = brute_force(positive.tolist(), negative.tolist())
    limit = rng.choice([1.0, 1.0, 0.5, 0.2])
    allowed = {cut: f1 for cut, (f1, false) in cuts.items() if false <= limit + 1e-9}
    if not allowed:
        with pytest.raises(UserError, match="no threshold fires on at most"):
            threshold.condition_point({Site(0): threshold.sweep(positive, negative)}, limit)
        return
    point = threshold.condition_point({Site(0): threshold.sweep(positive, negative)}, limit)
    assert point.f1 == max(allowed.values())
    widest = max(high - low for (low, high, _), value in allowed.items() if value == point.f1)
    assert point.gap == pytest.approx(widest, rel=1e-5)
    got = threshold.quality(
        [point.fires(s) for s in positive.tolist()], [point.fires(s) for s in negative.tolist()]
    )
    assert got.f1 == point.f1  # the threshold that is returned is the one that was scored


def test_every_threshold_of_the_sweep_parts_the_scores_as_counted():
    positive, negative = (
        torch.randn(50, generator=torch.Generator().manual_seed(0)) + 1,
        torch.linspace(-2, 2, 50),
    )
    swept = threshold.sweep(positive, negative)
    for cut, above, below in zip(
        swept.thresholds.tolist(), swept.f1_above, swept.f1_below, strict=True
    ):
        assert threshold.quality((positive > cut).tolist(), (negative > cut).tolist()).f1 == above
        assert threshold.quality((positive <= cut).tolist(), (negative <= cut).tolist()).f1 == below


def test_a_threshold_between_neighbouring_floats_still_parts_them():
    low = torch.tensor([0.04])
    high = torch.nextafter(low, torch.tensor([1.0]))
    point = threshold.condition_point({Site(0): threshold.sweep(high, low)})
    assert point.f1 == 1.0 and point.fires(high.item()) and not point.fires(low.item())


def test_the_threshold_is_the_midpoint_of_the_gap_and_not_rounded():
    point = threshold.condition_point(
        {Site(0): threshold.sweep(torch.tensor([0.04321]), torch.tensor([0.04123]))}
    )
    assert point.threshold == pytest.approx(0.04222, abs=1e-9)
    assert point.fires_when == "above"


def test_C12_ties_go_to_the_widest_gap_over_layers_and_cuts():
    near = threshold.sweep(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 0.0]))
    far = threshold.sweep(torch.tensor([-9.0, -8.0]), torch.tensor([1.0, 0.0]))
    point = threshold.condition_point({Site(0): near, Site(1): far})
    assert (point.site, point.fires_when, point.threshold) == (Site(1), "below", -4.0)


def test_equal_scores_separate_nothing():
    with pytest.raises(UserError, match="no threshold separates"):
        threshold.sweep(torch.ones(3), torch.ones(2))


def trial(refused, broken, strength, at_random=0.0):
    return choosing.Trial(
        choosing.Dose("all", "prompt", (0, 1), strength), refused, broken, at_random
    )


def test_the_dose_refuses_most_within_the_limit_on_broken_answers():
    trials = [trial(0.5, 0.0, 0.5), trial(0.9, 0.05, 1.0), trial(0.95, 0.3, 2.0)]
    assert choosing.choose(trials, max_broken=0.05).dose.strength == 1.0
    assert choosing.choose(trials, max_broken=0.5).dose.strength == 2.0
    with pytest.raises(
        UserError, match=r"every strength tried breaks more than 5%.*the least: 30%"
    ):
        choosing.choose(trials[2:], max_broken=0.05)


def test_equally_good_doses_tie_to_the_whole_text_and_then_to_the_weakest():
    assert (
        choosing.choose(
            [trial(0.9, 0.04, 0.5), trial(0.9, 0.0, 2.0), trial(0.9, 0.0, 1.0)], 0.05
        ).dose.strength
        == 1.0
    )


def test_what_random_directions_of_the_same_length_do_counts_against_a_dose():
    assert (
        choosing.choose([trial(0.9, 0.0, 0.5, 0.05), trial(1.0, 0.0, 2.0, 0.3)], 0.05).dose.strength
        == 0.5
    )
    assert (
        choosing.choose([trial(0.9, 0.0, 0.5, 0.05), trial(1.0, 0.0, 2.0, 0.1)], 0.05).dose.strength
        == 2.0
    )


@pytest.mark.parametrize("layers", [1, 2, 4, 12, 32, 80])
def test_layer_bands_are_distinct_and_within_the_model(layers):
    bands = choosing.layer_bands(layers)
    assert bands and len(set(bands)) == len(bands)
    assert all(
        band and band[-1] < layers and band == tuple(range(band[0], band[-1] + 1)) for band in bands
    )


def test_a_dose_names_itself_apart_from_every_other():
    doses = [
        choosing.Dose(*d)
        for d in itertools.product(("all", "last"), ("all", "prompt"), ((0,), (0, 1)), (0.5, 1.0))
    ]
    assert len({str(dose) for dose in doses}) == len(doses)


def test_a_score_at_the_threshold_in_fp32_is_judged_as_it_is_acted_on():
    score = torch.tensor(0.1).item()  # above 0.1 in fp64
    assert score > 0.1 and not fires(score, 0.1, "above") and fires(score, 0.1, "below")
    assert not edits.verdict(torch.tensor([score]), {"threshold": 0.1, "above": True}).item()
