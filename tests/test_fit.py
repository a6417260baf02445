from __future__ import annotations

import numpy as np
import pytest
import torch

from nnsteer import fit
from nnsteer.errors import UserError
from nnsteer.kernels import edits
from nnsteer.model.lower import lower_op, lower_where
from nnsteer.program.condition import probe
from nnsteer.program.op import Edit
from nnsteer.program.site import Site, block_outs
from nnsteer.program.span import ALL, PROMPT
from nnsteer.texts.contrast import of_prompts

from catalogue import read_of
from conftest import HARMFUL, HARMLESS

SITE = Site(0)


@pytest.fixture
def pairs():
    torch.manual_seed(0)
    base = torch.randn(40, 12)
    concept = torch.randn(12)
    return base + torch.rand(40, 1) * concept + 0.1 * torch.randn(40, 12), base


def test_mean_difference_joins_the_class_means(pairs):
    direction = fit.mean_difference(read_of(*pairs))[SITE]
    torch.testing.assert_close(
        direction.vector, pairs[0].mean(0) - pairs[1].mean(0), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(direction.origin, pairs[1].mean(0))


def test_C1_pca_pairwise_is_the_principal_axis_of_rows_centred_pair_by_pair(pairs):
    """Computed the long way: centre each pair on its midpoint, stack the rows, eigenvectors of
    their covariance."""
    positive, negative = (side.double() for side in pairs)
    middle = (positive + negative) / 2
    rows = torch.cat([positive - middle, negative - middle])
    torch.testing.assert_close(rows.mean(0), torch.zeros(12).double(), atol=1e-12, rtol=0)
    axis = torch.linalg.eigh(rows.T @ rows).eigenvectors[:, -1]
    vector = fit.pca_pairwise(read_of(*pairs))[SITE].vector.double()
    assert abs(torch.cosine_similarity(vector, axis, dim=0)).item() == pytest.approx(1, abs=1e-9)


def test_C1_pca_pairwise_does_not_see_what_both_members_of_a_pair_share(pairs):
    shared = 100 * torch.randn(40, 12).double()
    a = fit.pca_pairwise(read_of(pairs[0].double(), pairs[1].double()))[SITE].vector
    b = fit.pca_pairwise(read_of(pairs[0] + shared, pairs[1] + shared))[SITE].vector
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_C2_pca_pairwise_points_to_the_side_of_the_majority_of_pairs(pairs):
    vector = fit.pca_pairwise(read_of(*pairs))[SITE].vector
    assert ((pairs[0] - pairs[1]) @ vector > 0).float().mean() > 0.5
    torch.testing.assert_close(
        fit.pca_pairwise(read_of(pairs[1], pairs[0]))[SITE].vector, -vector, atol=1e-5, rtol=0
    )


def test_C2_pca_pairwise_has_the_mean_distance_of_pairs_as_length_and_unit_has_one(pairs):
    direction = fit.pca_pairwise(read_of(*pairs))[SITE]
    unit = direction.vector / direction.vector.norm()
    assert direction.vector.norm().item() == pytest.approx(
        ((pairs[0] - pairs[1]) @ unit).mean().item(), rel=1e-5
    )
    assert direction.unit().vector.norm().item() == pytest.approx(1)


def test_pca_pairwise_needs_pairs(pairs):
    with pytest.raises(UserError, match="needs pairs: 40 positive and 39 negative"):
        fit.pca_pairwise(read_of(pairs[0], pairs[1][:-1]))


def test_lda_finds_the_separating_direction_that_the_means_hide():
    """Two classes apart along the first axis, both stretched along a second one on which their
    means differ by chance."""
    torch.manual_seed(0)
    spread = torch.tensor([0.1, 20.0, 1.0])
    positive, negative = (
        torch.randn(400, 3) * spread + torch.tensor([1.0, 2.0, 0.0]),
        torch.randn(400, 3) * spread,
    )
    by_lda, by_mean = (
        method(read_of(positive, negative))[SITE].vector
        for method in (fit.lda, fit.mean_difference)
    )

    def accuracy(v):
        middle = (positive.mean(0) + negative.mean(0)) @ v / 2
        return (
            (positive @ v > middle).float().mean() + (negative @ v <= middle).float().mean()
        ).item() / 2

    assert accuracy(by_lda) > accuracy(by_mean) + 0.05


def test_lda_is_the_mean_difference_where_the_classes_are_round():
    torch.manual_seed(0)
    shift = torch.tensor([1.0, -2.0, 0.5, 0.0])
    points = torch.cat([torch.eye(4), -torch.eye(4)])  # equal variance in every direction
    vector = fit.lda(read_of(points + shift, points))[SITE].vector
    torch.testing.assert_close(vector, shift, atol=1e-6, rtol=0)


def run(op, h):
    return edits.kernel(h, lower_op(op))


def test_a_leace_eraser_leaves_no_linear_trace(read):
    moments = read.moments()
    for name in (fit.leace, fit.orth):
        for site, eraser in name(read).items():
            rows = [read.positive[site], read.negative[site]]
            means = [run(Edit(eraser), side[None]).mean((0, 1)) for side in rows]
            torch.testing.assert_close(means[0], means[1], atol=1e-4, rtol=0)
            assert (moments.positive[site].mean - moments.negative[site].mean).norm() > 0.1


def test_quadratic_editors_carry_a_gaussian_onto_the_target_class():
    torch.manual_seed(0)
    positive = torch.randn(4000, 4) @ torch.diag(torch.tensor([1.0, 2.0, 0.5, 1.0])) + torch.tensor(
        [3.0, 0, 0, 1.0]
    )
    negative = torch.randn(4000, 4)
    read = read_of(positive, negative)
    both = torch.cat([positive, negative])
    moved = run(Edit(fit.quadratic(read, "positive")[Site(0)]), both[None])[0]
    torch.testing.assert_close(moved.mean(0), positive.mean(0), atol=1e-3, rtol=0)
    torch.testing.assert_close(moved.mT.cov(), positive.mT.cov(), atol=0.05, rtol=0)
    lda = fit.quadratic_lda(read, "positive")[Site(0)]
    step = lower_op(Edit(lda)) | {
        "where": lower_where(ALL),
        "rows": None,
        "when": None,
        "columns": None,
    }
    offsets = torch.arange(8000)[None] - 8000
    got = edits.apply(
        both[None], [step], edits.tokens_of(offsets, torch.tensor([8000]), torch.ones(1, 8000)), {}
    )[0]
    stayed = (got == both).all(1)
    assert stayed[:4000].float().mean() > 0.9 and stayed[4000:].float().mean() < 0.1
    torch.testing.assert_close(got[4000:].mean(0), positive.mean(0), atol=0.2, rtol=0)


@pytest.mark.parametrize("method", [fit.lda, fit.logistic])
def test_a_probes_condition_decides_at_its_own_boundary(method):
    torch.manual_seed(0)
    positive, negative = (
        torch.randn(300, 6) + torch.tensor([2.0, 1, 0, 0, 0, 0]),
        torch.randn(100, 6),
    )
    d = method(read_of(positive, negative))[Site(0)]
    when = probe(d)
    facts = {
        "vector": d.vector,
        "origin": d.origin,
        "score": when.score,
        "where": lower_where(ALL),
        "columns": None,
    }

    def accuracy(direction, threshold):
        score = [
            edits.score(
                x[:, None],
                facts | {"vector": direction.vector},
                edits.tokens_of(torch.tensor([[-1]]), torch.tensor([1]), torch.ones(1, 1)),
            )
            for x in (positive, negative)
        ]
        return ((score[0] > threshold).sum() + (score[1] <= threshold).sum()).item() / 400

    assert accuracy(d, when.threshold) > 0.85
    assert all(
        accuracy(d, when.threshold) > accuracy(d, when.threshold + off) for off in (-0.4, 0.4)
    )
    twice = d.with_length(2 * d.vector.norm().item())
    assert accuracy(twice, probe(twice).threshold) == accuracy(d, when.threshold)
    with pytest.raises(UserError, match="no probe"):
        probe(fit.mean_difference(read_of(positive, negative))[Site(0)])


def test_streamed_moments_are_those_of_all_rows_at_once(runner):
    contrast = of_prompts(HARMFUL, HARMLESS)
    sites = block_outs([1, 3])
    streamed = runner.with_batch_size(2).moments(contrast, sites, covariance=True)
    at_once = runner.record(contrast, sites).moments(covariance=True)
    for site in sites:
        for side in ("positive", "negative"):
            a, b = getattr(streamed, side)[site], getattr(at_once, side)[site]
            assert a.count == b.count
            torch.testing.assert_close(
                a.mean, b.mean, atol=1e-5, rtol=0
            )  # fp32 forwards of other batches
            torch.testing.assert_close(a.scatter, b.scatter, atol=1e-4, rtol=0)
            assert a.norm == pytest.approx(b.norm, rel=1e-5)
    for method in (fit.mean_difference, fit.lda):
        a, b = method(streamed), method(runner.record(contrast, sites))
        assert all(torch.allclose(a[s].vector, b[s].vector, atol=1e-4) for s in sites)


def test_relative_strength_is_a_fraction_of_the_mean_residual_norm(runner):
    read = runner.record(of_prompts(HARMFUL, HARMLESS), [Site(2)], PROMPT)
    d = fit.mean_difference(read)[Site(2)].relative()
    norms = []
    for prompt in (*HARMFUL, *HARMLESS):
        ids = torch.tensor([runner.chat.prompt_ids(prompt)])
        states = runner.hf(ids, output_hidden_states=True).hidden_states[3][0]
        norms.append(states.norm(dim=-1).mean().item())
    assert d.vector.norm().item() == pytest.approx(sum(norms) / 6, rel=1e-4)


def test_regressed_directions_follow_the_score(read):
    z = read.positive[Site(2)] @ torch.arange(32.0)
    d = fit.regressed(read, z)[Site(2)]
    x = read.positive[Site(2)].double().numpy()
    want = [np.cov(x[:, i], z.numpy())[0, 1] / z.numpy().std(ddof=1) for i in range(32)]
    torch.testing.assert_close(d.vector, torch.tensor(want).float(), atol=1e-4, rtol=1e-4)


def test_orthogonalised_directions_have_nothing_of_the_others(d):
    others = [fit.random_like(d, 1), fit.random_like(d, 2)]
    left = fit.orthogonal(d, others)
    for site, direction in left.items():
        for other in others:
            assert abs(torch.cosine_similarity(direction.vector, other[site].vector, dim=0)) < 1e-5
        rest = d[site].vector - direction.vector
        spanned = torch.stack([o[site].vector for o in others]).mT
        torch.testing.assert_close(
            spanned @ torch.linalg.lstsq(spanned, rest).solution, rest, atol=1e-5, rtol=0
        )


def test_pca_center_and_pca_diff_are_those_of_the_library():
    torch.manual_seed(0)
    concept = torch.randn(8)
    base = torch.randn(60, 8) * 0.2
    # spec: pca_diff leaves the mean difference out, pca_pairwise is mostly it
    positive = base + concept + torch.randn(60, 1) * torch.eye(8)[3] * 0.8
    read = read_of(positive, base)
    mean = fit.mean_difference(read)[Site(0)].vector
    methods = (fit.pca_pairwise, fit.pca_center, fit.pca_diff)
    pairwise, center, diff = (
        torch.cosine_similarity(m(read)[Site(0)].vector, mean, dim=0).item() for m in methods
    )
    assert pairwise > 0.95 and center > 0.95 and abs(diff) < 0.8
    rows = torch.cat([positive, base]).double()
    axes = torch.linalg.eigh(torch.cov(rows.mT)).eigenvectors
    got = fit.pca_center(read)[Site(0)].unit().vector.double()
    assert abs(got @ axes[:, -1]).item() == pytest.approx(1, abs=1e-6)
    differences = (positive - base).double()
    got = fit.pca_diff(read)[Site(0)].unit().vector.double()
    assert abs(
        got @ torch.linalg.eigh(torch.cov(differences.mT)).eigenvectors[:, -1]
    ).item() == pytest.approx(1, abs=1e-6)
