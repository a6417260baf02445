from __future__ import annotations

import pytest
import torch

from nnsteer import fit
from nnsteer.activations import Activations
from nnsteer.identity import ModelId
from nnsteer.site import Site
from nnsteer.span import PROMPT

SITE = Site(2)


def activations(positive, negative):
    norms = {SITE: (positive.norm(dim=1), negative.norm(dim=1))}
    return Activations({SITE: positive}, {SITE: negative}, norms, PROMPT, ModelId("m", None, "w"), "data")


@pytest.fixture
def pairs():
    torch.manual_seed(0)
    base = torch.randn(40, 12)
    concept = torch.randn(12)
    return base + torch.rand(40, 1) * concept + 0.1 * torch.randn(40, 12), base


def test_mean_difference_joins_the_class_means(pairs):
    direction = fit.mean_difference(activations(*pairs))[SITE]
    torch.testing.assert_close(direction.vector, pairs[0].mean(0) - pairs[1].mean(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(direction.origin, pairs[1].mean(0))


def test_pca_pairwise_is_the_principal_axis_of_rows_centred_pair_by_pair(pairs):
    """Computed the long way: centre each pair on its midpoint, stack the rows, eigenvectors of their covariance."""
    positive, negative = (side.double() for side in pairs)
    middle = (positive + negative) / 2
    rows = torch.cat([positive - middle, negative - middle])
    torch.testing.assert_close(rows.mean(0), torch.zeros(12).double(), atol=1e-12, rtol=0)
    axis = torch.linalg.eigh(rows.T @ rows).eigenvectors[:, -1]
    vector = fit.pca_pairwise(activations(*pairs))[SITE].vector.double()
    assert abs(torch.cosine_similarity(vector, axis, dim=0)).item() == pytest.approx(1, abs=1e-9)


def test_pca_pairwise_does_not_see_what_both_members_of_a_pair_share(pairs):
    shared = 100 * torch.randn(40, 12).double()
    a = fit.pca_pairwise(activations(pairs[0].double(), pairs[1].double()))[SITE].vector
    b = fit.pca_pairwise(activations(pairs[0] + shared, pairs[1] + shared))[SITE].vector
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_pca_pairwise_points_to_the_side_of_the_majority_of_pairs(pairs):
    vector = fit.pca_pairwise(activations(*pairs))[SITE].vector
    assert ((pairs[0] - pairs[1]) @ vector > 0).float().mean() > 0.5
    torch.testing.assert_close(fit.pca_pairwise(activations(pairs[1], pairs[0]))[SITE].vector, -vector, atol=1e-5, rtol=0)


def test_pca_pairwise_has_the_mean_distance_of_pairs_as_length_and_unit_has_one(pairs):
    direction = fit.pca_pairwise(activations(*pairs))[SITE]
    unit = direction.vector / direction.vector.norm()
    assert direction.vector.norm().item() == pytest.approx(((pairs[0] - pairs[1]) @ unit).mean().item(), rel=1e-5)
    assert direction.unit().vector.norm().item() == pytest.approx(1)


def test_pca_pairwise_needs_pairs(pairs):
    with pytest.raises(ValueError, match="needs pairs: 40 positive and 39 negative"):
        fit.pca_pairwise(activations(pairs[0], pairs[1][:-1]))


def test_lda_finds_the_separating_direction_that_the_means_hide():
    """Two classes apart along the first axis, both stretched along a second one on which their means differ by chance."""
    torch.manual_seed(0)
    spread = torch.tensor([0.1, 20.0, 1.0])
    positive, negative = torch.randn(400, 3) * spread + torch.tensor([1.0, 2.0, 0.0]), torch.randn(400, 3) * spread
    by_lda, by_mean = (method(activations(positive, negative))[SITE].vector for method in (fit.lda, fit.mean_difference))

    def accuracy(v):
        middle = (positive.mean(0) + negative.mean(0)) @ v / 2
        return ((positive @ v > middle).float().mean() + (negative @ v <= middle).float().mean()).item() / 2

    assert accuracy(by_lda) > accuracy(by_mean) + 0.05


def test_lda_is_the_mean_difference_where_the_classes_are_round():
    torch.manual_seed(0)
    shift = torch.tensor([1.0, -2.0, 0.5, 0.0])
    points = torch.cat([torch.eye(4), -torch.eye(4)])  # equal variance in every direction
    vector = fit.lda(activations(points + shift, points))[SITE].vector
    torch.testing.assert_close(vector, shift, atol=1e-6, rtol=0)
