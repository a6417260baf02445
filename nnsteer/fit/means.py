"""Directions from first moments, and from covariances with a score."""

from __future__ import annotations

from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.fit.activations import Activations
from nnsteer.fit.moments import Moments
from nnsteer.program.direction import Direction, Directions
from nnsteer.program.site import Place

Read = Activations | Moments
"""What was read, text by text or as moments."""


def mean_difference(read: Read) -> Directions:
    """The positive class mean minus the negative one; its length is the distance between the means.
    One pair of texts gives ActAdd's direction."""
    read, method = as_moments(read, covariance=False), "mean_difference"
    directions: dict[Place, Direction] = {}
    for site, positive in read.positive.items():
        negative = read.negative[site]
        total = positive.norm * positive.count + negative.norm * negative.count
        norm = total / (positive.count + negative.count)
        vector, origin = (positive.mean - negative.mean).float(), negative.mean.float()
        directions[site] = Direction(
            vector, site, read.span, method, origin, read.model, read.data, norm
        )
    return Directions(directions)


def regressed(activations: Activations, targets: Tensor) -> Directions:
    """cov(x, z) / std(z) over the positive texts' states x and one score z each, [text], such as
    the logit difference of two answer letters (steering-llama3 `--logit`): how far a state moves
    per standard deviation of the score."""
    z = targets.double()
    directions: dict[Place, Direction] = {}
    for site, rows in activations.positive.items():
        if len(rows) != len(z):
            counts = f"{len(rows)} positive texts but {len(z)} scores"
            raise UserError(f"{counts}: give one score for each text")
        x = rows.double()
        covariance = (x - x.mean(0)).mT @ (z - z.mean()) / (len(z) - 1)
        vector, norms = covariance / z.std(), activations.norms[site][0]
        directions[site] = activations.direction(site, "regressed", vector, rows, norms)
    return Directions(directions)


def as_moments(read: Read, covariance: bool) -> Moments:
    """Moments of either."""
    return read if isinstance(read, Moments) else read.moments(covariance)
