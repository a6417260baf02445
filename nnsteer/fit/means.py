"""Directions from first moments, and from covariances with a score."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.fit.activations import Activations
from nnsteer.fit.moments import ClassMoments, Moments
from nnsteer.program.direction import Direction, Directions
from nnsteer.program.site import Place

Read = Activations | Moments
"""What was read, text by text or as moments."""


def mean_difference(read: Read) -> Directions:
    """The positive class mean minus the negative one; its length is the distance between the means. One pair of texts gives
    ActAdd's direction."""
    return from_moments(read, "mean_difference", lambda positive, negative: positive.mean - negative.mean, covariance=False)


def regressed(activations: Activations, targets: Tensor) -> Directions:
    """cov(x, z) / std(z) over the positive texts' states x and one score z each, [text], such as the logit difference of two
    answer letters (steering-llama3 `--logit`): how far a state moves per standard deviation of the score."""
    z = targets.double()
    directions: dict[Place, Direction] = {}
    for site, rows in activations.positive.items():
        if len(rows) != len(z):
            raise UserError(f"{len(rows)} positive texts but {len(z)} scores: give one score for each text")
        x = rows.double()
        covariance = (x - x.mean(0)).mT @ (z - z.mean()) / (len(z) - 1)
        vector = (covariance / z.std()).float()
        origin, norm = rows.mean(0), activations.norms[site][0].mean().item()
        directions[site] = Direction(
            vector, site, activations.span, "regressed", origin, activations.model, activations.data, norm
        )
    return Directions(directions)


def as_moments(read: Read, covariance: bool) -> Moments:
    """Moments of either."""
    return read if isinstance(read, Moments) else read.moments(covariance)


def mean_norm(positive: ClassMoments, negative: ClassMoments) -> float:
    """The mean norm of all the states that were read."""
    return (positive.norm * positive.count + negative.norm * negative.count) / (positive.count + negative.count)


def from_moments(read: Read, method: str, vector: Callable[[ClassMoments, ClassMoments], Tensor], covariance: bool) -> Directions:
    """A direction per site from a function of both classes' moments to a vector [hidden]."""
    moments = as_moments(read, covariance)
    directions: dict[Place, Direction] = {}
    for site, positive in moments.positive.items():
        negative = moments.negative[site]
        directions[site] = Direction(
            vector=vector(positive, negative).float(),
            site=site,
            span=moments.span,
            method=method,
            origin=negative.mean.float(),
            model=moments.model,
            data=moments.data,
            norm=mean_norm(positive, negative),
        )
    return Directions(directions)
