"""Activations to directions, one per site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from nnsteer.activations import Activations
from nnsteer.direction import Direction, Directions

RIDGE = 0.1  # of the mean variance, added to every variance


def mean_difference(activations: Activations) -> dict:
    """The positive class mean minus the negative one; its length is the distance between the means."""
    return _fit(activations, "mean_difference", lambda positive, negative: positive.mean(0) - negative.mean(0))


def pca_pairwise(activations: Activations) -> dict:
    """The first principal direction of pairs centred on their own midpoints (CAST section 3.1), which is the top right
    singular vector of the uncentred differences. Its sign is the majority's: most pairs have the positive text further
    along it. Its length is the mean distance of the pairs along it; `Direction.unit()` gives the paper's unit vector."""
    return _fit(activations, "pca_pairwise", _pca_pairwise)


def _pca_pairwise(positive: Tensor, negative: Tensor) -> Tensor:
    if len(positive) != len(negative):
        raise ValueError(f"pca_pairwise needs pairs: {len(positive)} positive and {len(negative)} negative texts")
    differences = positive - negative
    unit = torch.linalg.svd(differences, full_matrices=False).Vh[0]
    along = differences @ unit
    sign = 1.0 if (along > 0).sum() >= (along < 0).sum() else -1.0
    return unit * sign * along.mean().abs()


def lda(activations: Activations) -> dict:
    """Fisher's linear discriminant: the direction along which the class means lie furthest apart for the spread within the
    classes. The pooled covariance is shrunk towards a round one by RIDGE. Its length is the distance of the means along it."""
    return _fit(activations, "lda", _lda)


def _lda(positive: Tensor, negative: Tensor) -> Tensor:
    difference = positive.mean(0) - negative.mean(0)
    rows = torch.cat([positive - positive.mean(0), negative - negative.mean(0)])
    covariance = rows.mT @ rows / len(rows)
    ridge = RIDGE * covariance.diagonal().mean() * torch.eye(len(difference), dtype=rows.dtype)
    unit = torch.nn.functional.normalize(torch.linalg.solve(covariance + ridge, difference), dim=0)
    return unit * (difference @ unit)


Method = Literal["mean_difference", "pca_pairwise", "lda"]
METHODS: dict[Method, Callable[[Activations], dict]] = {
    "mean_difference": mean_difference,
    "pca_pairwise": pca_pairwise,
    "lda": lda,
}


def random_like(directions: Directions, seed: int) -> dict:
    """A control: at each site an isotropic random direction with the length of the one given."""
    controls = {}
    for site, direction in directions.items():
        generator = torch.Generator().manual_seed(seed * 1009 + site.order[0] * 4 + site.order[1])
        noise = torch.randn(direction.vector.shape, generator=generator)
        vector = noise / noise.norm() * direction.vector.norm()
        controls[site] = Direction(
            vector, site, direction.span, f"random (seed {seed})", direction.origin, direction.model, direction.data
        )
    return controls


def _fit(activations: Activations, method: str, vector: Callable[[Tensor, Tensor], Tensor]) -> dict:
    directions = {}
    for site, positive in activations.positive.items():
        negative = activations.negative[site]
        directions[site] = Direction(
            vector=vector(positive.double(), negative.double()).float(),
            site=site,
            span=activations.span,
            method=method,
            origin=negative.mean(0),
            model=activations.model,
            data=activations.data,
        )
    return directions
