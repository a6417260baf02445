"""Directions from several parts of a contrast set, each read and reduced next to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import chain

import torch

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
    parts: Sequence[list[dict]],
    sites: Sequence[Place],
    method: Method,
    span: Reading,
    model: ModelId,
    data: str,
) -> Directions:
    """Directions from each part's `kernels.fits.partial`. Means and covariances merge exactly;
    pca_pairwise is that of the truncated factors (`discarded` says what share of the differences'
    energy they leave out)."""
    by_site = dict(zip(sites, zip(*parts, strict=True), strict=True))
    positive, negative = (
        {site: classes(site_parts, side) for site, site_parts in by_site.items()} for side in (0, 1)
    )
    moments = Moments(positive, negative, span, model, data)
    if method == "lda":
        return lda(moments)
    means = mean_difference(moments)
    if method == "mean_difference":
        return means
    return Directions({site: principal(means[site], by_site[site]) for site in sites})


def classes(parts: Sequence[dict], side: int) -> ClassMoments:
    """One class's moments at one site over all parts."""
    return reduce(merged, (class_moments(part, side) for part in parts))


def class_moments(part: dict, side: int) -> ClassMoments:
    """One class's moments at one site in one part."""
    scatter = None if part["scatters"] is None else part["scatters"][side].double()
    return ClassMoments(
        part["counts"][side], part["means"][side].double(), scatter, part["norms"][side]
    )


def principal(mean: Direction, parts: Sequence[dict]) -> Direction:
    """CAST's direction from the factors of the pairs' differences, difference = left @ right."""
    factors = [(part["left"].double(), part["right"].double()) for part in parts]
    # as left's columns are orthogonal, their norms are all that it adds to the rows' Gram matrix
    unit = top_singular(torch.cat([left.norm(dim=0).diag() @ right for left, right in factors]))
    along = torch.cat([left @ (right @ unit) for left, right in factors])
    return replace(mean, vector=oriented(unit, along).float(), method="pca_pairwise")


def discarded(parts: Sequence[list[dict]]) -> float:
    """The largest share of the differences' energy that a factor leaves out, at any site."""
    return max(site["discarded"] for site in chain(*parts))
