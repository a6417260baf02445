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
        counts = f"{len(parts)} directions but {len(weights)} weights"
        raise UserError(f"{counts}: give one weight for each")
    sums: dict[Place, Direction] = {}
    first, *others = map(as_directions, parts)
    for site, direction in first.items():
        alike = [direction, *(_at(part, site, direction) for part in others)]
        pairs = list(zip(weights, alike, strict=True))
        sums[site] = replace(
            direction,
            vector=torch.stack([weight * d.vector for weight, d in pairs]).sum(0),
            origin=torch.stack([d.origin for d in alike]).mean(0),
            method=" + ".join(f"{weight:g} {d.method}" for weight, d in pairs),
            data=", ".join(dict.fromkeys(d.data for d in alike)),
            boundary=None,
        )
    return Directions(sums)


def mean(parts: Sequence[AnyDirections]) -> Directions:
    """The mean of the directions at each site."""
    return total(parts, [1 / len(parts)] * len(parts))


def orthogonal(directions: AnyDirections, to: Sequence[AnyDirections]) -> Directions:
    """Each direction without its part in the span of the others at its site."""
    rests: dict[Place, Direction] = {}
    away = [as_directions(part) for part in to]
    for site, direction in as_directions(directions).items():
        others = torch.stack([_at(part, site, direction).vector.double() for part in away])
        q, vector = torch.linalg.qr(others.mT).Q, direction.vector.double()
        rest = (vector - q @ (q.mT @ vector)).float()
        method = f"{direction.method}, orthogonalised"
        rests[site] = replace(direction, vector=rest, method=method, boundary=None)
    return Directions(rests)


def _at(part: Directions, site: Place, first: Direction) -> Direction:
    if site not in part:
        there = f"it has {', '.join(map(str, part))}"
        raise UserError(f"{site}: a direction to combine has none there, {there}")
    require_same(str(part[site]), part[site].model, first.model)
    return part[site]
