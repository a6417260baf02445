"""Directions that should do nothing in particular."""

from __future__ import annotations

from dataclasses import replace

import torch

from nnsteer.fit.means import Read, mean_difference
from nnsteer.program.direction import AnyDirections, Direction, Directions, as_directions, generator
from nnsteer.program.site import Place


def random_like(directions: AnyDirections, seed: int) -> Directions:
    """At each site an isotropic random direction with the length of the one given."""
    return as_directions(directions).random_like(seed)


def permuted(read: Read | Directions, seed: int) -> Directions:
    """The difference of the class means after the entries of each were shuffled, each on its own
    (*Extending Activation Steering to Broad Skills*); of what was read, or of mean differences,
    which know both means. It is usually longer than the mean difference: see `norm_matched`."""
    method = f"permuted (seed {seed})"
    shuffled: dict[Place, Direction] = {}
    differences = read if isinstance(read, Directions) else mean_difference(read)
    for site, direction in differences.items():
        chance = generator(site, seed)
        positive, negative = direction.vector + direction.origin, direction.origin
        order = [torch.randperm(len(positive), generator=chance) for _ in range(2)]
        vector, origin = positive[order[0]] - negative[order[1]], negative[order[1]]
        shuffled[site] = replace(direction, vector=vector, origin=origin, method=method)
    return Directions(shuffled)


def norm_matched(directions: AnyDirections, like: AnyDirections) -> Directions:
    """The same directions with the lengths of `like`."""
    own, wanted = as_directions(directions), as_directions(like)
    lengths = {site: wanted[site].vector.norm().item() for site in own}
    return Directions({site: d.with_length(lengths[site]) for site, d in own.items()})
