"""Directions made of directions, site by site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from nnsteer.errors import UserError
from nnsteer.program.direction import AnyDirections, Direction, Directions, as_directions
from nnsteer.program.identity import require_same
from nnsteer.program.site import Place


def total(parts: Sequence[AnyDirections], weights: Sequence[float] | None = None) -> Directions:
    """The (weighted) sum of the directions at each site. Its origin is the mean of theirs."""
    weights = [1.0] * len(parts) if weights is None else list(weights)
    if len(weights) != len(parts):
        raise UserError(f"{len(parts)} directions but {len(weights)} weights: give one weight for each")
    sums: dict[Place, Direction] = {}
    given = [as_directions(part) for part in parts]
    for site, first in given[0].items():
        same = [_at(part, site, first) for part in given]
        vector = torch.stack([w * d.vector for w, d in zip(weights, same, strict=True)]).sum(0)
        origin = torch.stack([d.origin for d in same]).mean(0)
        method = " + ".join(f"{w:g} {d.method}" for w, d in zip(weights, same, strict=True))
        data = ", ".join(dict.fromkeys(d.data for d in same))
        sums[site] = replace(first, vector=vector, origin=origin, method=method, data=data, boundary=None)
    return Directions(sums)


def mean(parts: Sequence[AnyDirections]) -> Directions:
    """The mean of the directions at each site."""
    return total(parts, [1 / len(parts)] * len(parts))


def orthogonal(directions: AnyDirections, to: Sequence[AnyDirections]) -> Directions:
    """Each direction without its part in the span of the others at its site."""
    left: dict[Place, Direction] = {}
    away = [as_directions(part) for part in to]
    for site, direction in as_directions(directions).items():
        others = torch.stack([_at(part, site, direction).vector.double() for part in away])
        q = torch.linalg.qr(others.mT).Q
        vector = direction.vector.double()
        rest = (vector - q @ (q.mT @ vector)).float()
        left[site] = replace(direction, vector=rest, method=f"{direction.method}, orthogonalised", boundary=None)
    return Directions(left)


def _at(part: Directions, site: Place, first: Direction) -> Direction:
    if site not in part:
        raise UserError(f"{site}: a direction to combine has none there, it has {', '.join(map(str, part))}")
    require_same(str(part[site]), part[site].model, first.model)
    return part[site]
