"""Directions that should do nothing in particular."""

from __future__ import annotations

from dataclasses import replace

import torch

from nnsteer.fit.means import Read, from_moments
from nnsteer.program.direction import Direction, Directions
from nnsteer.program.site import Place


def random_like(directions: Directions, seed: int) -> dict[Place, Direction]:
    """At each site an isotropic random direction with the length of the one given."""
    controls = {}
    for site, direction in directions.items():
        noise = torch.randn(direction.vector.shape, generator=_generator(site, seed))
        vector = noise / noise.norm() * direction.vector.norm()
        controls[site] = replace(direction, vector=vector, method=f"random (seed {seed})", boundary=None)
    return controls


def permuted(read: Read, seed: int) -> dict[Place, Direction]:
    """The difference of the class means after the entries of each were shuffled, each on its own (*Extending Activation Steering
    to Broad Skills*). It is usually longer than the mean difference: see `norm_matched`."""
    method = f"permuted (seed {seed})"
    directions = from_moments(read, method, lambda positive, _: positive.mean, covariance=False)
    for site, direction in directions.items():
        generator = _generator(site, seed)
        positive, negative = direction.vector, direction.origin
        order = [torch.randperm(len(positive), generator=generator) for _ in range(2)]
        directions[site] = replace(direction, vector=positive[order[0]] - negative[order[1]], origin=negative[order[1]])
    return directions


def norm_matched(directions: Directions, like: Directions) -> dict[Place, Direction]:
    """The same directions with the lengths of `like`."""
    return {site: d.with_length(like[site].vector.norm().item()) for site, d in directions.items()}


def _generator(site: Place, seed: int) -> torch.Generator:
    layer, stream, head = site.order
    return torch.Generator().manual_seed(seed * 1_000_003 + layer * 4096 + head * 8 + int(stream * 2))
