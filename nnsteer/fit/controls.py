"""Directions that should do nothing in particular."""

from __future__ import annotations

from dataclasses import replace

import torch

from nnsteer.fit.means import Read, as_moments, mean_difference
from nnsteer.program.direction import AnyDirections, Direction, Directions, as_directions, generator
from nnsteer.program.site import Place


def random_like(directions: AnyDirections, seed: int) -> Directions:
    """At each site an isotropic random direction with the length of the one given."""
    return as_directions(directions).random_like(seed)


def permuted(read: Read, seed: int) -> Directions:
    """The difference of the class means after the entries of each were shuffled, each on its own
    (*Extending Activation Steering to Broad Skills*). It is usually longer than the mean
    difference: see `norm_matched`."""
    moments, method = as_moments(read, covariance=False), f"permuted (seed {seed})"
    shuffled: dict[Place, Direction] = {}
    for site, mean in mean_difference(moments).items():
        chance = generator(site, seed)
        positive, negative = (
            side[site].mean.float()[torch.randperm(len(mean.vector), generator=chance)]
            for side in (moments.positive, moments.negative)
        )
        shuffled[site] = replace(mean, vector=positive - negative, origin=negative, method=method)
    return Directions(shuffled)


def norm_matched(directions: AnyDirections, like: AnyDirections) -> Directions:
    """The same directions with the lengths of `like`."""
    given, wanted = as_directions(directions), as_directions(like)
    lengths = {site: wanted[site].vector.norm().item() for site in given}
    return Directions({site: d.with_length(lengths[site]) for site, d in given.items()})
