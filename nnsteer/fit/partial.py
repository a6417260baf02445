"""Directions from several parts of a contrast set that were read, and reduced, one after the other next to the model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import chain

import torch
from torch import Tensor

from nnsteer.fit.means import mean_difference
from nnsteer.fit.moments import ClassMoments, Moments, merged
from nnsteer.fit.probes import lda
from nnsteer.kernels.fits import oriented, top_singular
from nnsteer.program.direction import Direction, Directions
from nnsteer.program.identity import ModelId
from nnsteer.program.names import Method
from nnsteer.program.site import Place
from nnsteer.program.span import Reading

COVARIANCE: dict[Method, bool] = {"mean_difference": False, "pca_pairwise": False, "lda": True}
"""The methods that can be fitted in parts, and whether they need covariances."""


def joined(
    parts: Sequence[list[dict]], sites: Sequence[Place], method: Method, span: Reading, model: ModelId, data: str
) -> Directions:
    """Directions from each part's `kernels.partial`. Means and covariances merge exactly; pca_pairwise is that of the truncated
    factors (`discarded` says what share of the differences' energy they leave out)."""
    positive, negative = ({site: classes(parts, i, side) for i, site in enumerate(sites)} for side in (0, 1))
    moments = Moments(positive, negative, span, model, data)
    if method == "lda":
        return lda(moments)
    means = mean_difference(moments)
    if method == "mean_difference":
        return means
    at = {site: [part[i] for part in parts] for i, site in enumerate(sites)}
    return Directions({site: principal(means[site], own) for site, own in at.items()})


def classes(parts: Sequence[list[dict]], i: int, side: int) -> ClassMoments:
    """One class's moments at site `i` over all parts."""
    return reduce(merged, (class_moments(part[i], side) for part in parts))


def class_moments(found: dict, side: int) -> ClassMoments:
    """One class's moments in one part."""
    scatter = None if found["scatters"] is None else found["scatters"][side].double()
    return ClassMoments(found["counts"][side], found["means"][side].double(), scatter, found["norms"][side])


def principal(mean: Direction, parts: Sequence[dict]) -> Direction:
    """CAST's direction from the factors of the pairs' differences, difference = left @ right."""
    rows = torch.cat([spread(part) @ part["right"].double() for part in parts])
    unit = top_singular(rows)
    along = torch.cat([part["left"].double() @ (part["right"].double() @ unit) for part in parts])
    vector = oriented(unit, along).float()
    return Direction(vector, mean.site, mean.span, "pca_pairwise", mean.origin, mean.model, mean.data, mean.norm)


def spread(part: dict) -> Tensor:
    """The singular values of a part, as a diagonal matrix."""
    return part["left"].double().norm(dim=0).diag()


def discarded(parts: Sequence[list[dict]]) -> float:
    """The largest share of the differences' energy that a factor leaves out, at any site."""
    return max(site["discarded"] for site in chain(*parts))
