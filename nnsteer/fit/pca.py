"""CAST's principal directions (*Programming Refusal with Conditional Activation Steering* and its
library). Each has the sign of most pairs, whose positive text lies further along it, and as its
length the pairs' mean distance along it; `Direction.unit()` gives the paper's unit vector."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.fit.activations import Activations
from nnsteer.kernels import fits
from nnsteer.program.direction import Direction, Directions
from nnsteer.program.site import Place


def pca_pairwise(activations: Activations) -> Directions:
    """The first principal direction of pairs centred on their own midpoints (section 3.1), which is
    the top right singular vector of the uncentred differences."""
    return _fit(activations, "pca_pairwise", fits.pca_pairwise)


def pca_center(activations: Activations) -> Directions:
    """The first principal direction of all states about their mean (the library, July 2025 on)."""
    return _fit(activations, "pca_center", fits.pca_center)


def pca_diff(activations: Activations) -> Directions:
    """The first principal direction of the differences about their mean, so that the mean
    difference itself is left out: the library's way to Representation Engineering."""
    return _fit(activations, "pca_diff", fits.pca_diff)


def _fit(
    activations: Activations,
    method: str,
    kernel: Callable[[Tensor, Tensor], tuple[Tensor, float | None]],
) -> Directions:
    directions: dict[Place, Direction] = {}
    for site, positive in activations.positive.items():
        negative = activations.negative[site]
        if len(positive) != len(negative):
            counts = f"{len(positive)} positive and {len(negative)} negative texts"
            raise UserError(f"{method} needs pairs: {counts}")
        vector, norms = kernel(positive, negative)[0], torch.cat(activations.norms[site])
        directions[site] = activations.direction(site, method, vector, negative, norms)
    return Directions(directions)
