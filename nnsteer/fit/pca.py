"""CAST's principal directions (*Programming Refusal with Conditional Activation Steering* and its library). Each has the sign of
the majority, most pairs having the positive text further along it, and as its length the mean distance of the pairs along it;
`Direction.unit()` gives the paper's unit vector."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nnsteer.activations import Activations
from nnsteer.direction import Direction
from nnsteer.site import Place


def pca_pairwise(activations: Activations) -> dict[Place, Direction]:
    """The first principal direction of pairs centred on their own midpoints (section 3.1), which is the top right singular
    vector of the uncentred differences."""
    return _fit(activations, "pca_pairwise", lambda positive, negative: positive - negative)


def pca_center(activations: Activations) -> dict[Place, Direction]:
    """The first principal direction of all states about their common mean (the library since July 2025)."""
    return _fit(activations, "pca_center", lambda positive, negative: _centred(torch.cat([positive, negative])))


def pca_diff(activations: Activations) -> dict[Place, Direction]:
    """The first principal direction of the differences about their mean, so that the mean difference itself is left out: the
    library's way to Representation Engineering."""
    return _fit(activations, "pca_diff", lambda positive, negative: _centred(positive - negative))


def _centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(0)


def _fit(activations: Activations, method: str, rows_of: Callable[[Tensor, Tensor], Tensor]) -> dict[Place, Direction]:
    directions = {}
    for site, positive in activations.positive.items():
        negative = activations.negative[site]
        if len(positive) != len(negative):
            raise ValueError(f"{method} needs pairs: {len(positive)} positive and {len(negative)} negative texts")
        rows = rows_of(positive.double(), negative.double())
        unit = torch.linalg.svd(rows, full_matrices=False).Vh[0]
        along = (positive - negative).double() @ unit
        sign = 1.0 if (along > 0).sum() >= (along < 0).sum() else -1.0
        length = along.mean().abs()
        norm = torch.cat(activations.norms[site]).mean().item()
        origin = negative.mean(0)
        vector = (unit * sign * length).float()
        directions[site] = Direction(vector, site, activations.span, method, origin, activations.model, activations.data, norm)
    return directions
