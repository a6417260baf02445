"""What is read of one side's texts, batch by batch, put together: their states, or moments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from nnsteer.fit.moments import ClassMoments, merged, of_rows
from nnsteer.program.site import Place

Read = tuple[list[int], list[Tensor], list[Tensor]]
"""Of a batch: the numbers of its texts and, for each site, mean states [row, hidden] and mean norms
of the states [row]."""
BySite = dict[Place, Tensor]


def states_and_norms(read: Iterable[Read], sites: Sequence[Place]) -> tuple[BySite, BySite]:
    """States [text, hidden] and norms [text], in the order of the texts."""
    batches = list(read)
    order = torch.tensor([text for texts, _, _ in batches for text in texts]).argsort()
    states, lengths = {}, {}
    for i, site in enumerate(sites):
        states[site] = torch.cat([means[i] for _, means, _ in batches])[order]
        lengths[site] = torch.cat([norms[i] for _, _, norms in batches])[order]
    return states, lengths


def class_moments(
    read: Iterable[Read], sites: Sequence[Place], covariance: bool
) -> dict[Place, ClassMoments]:
    """Means and, with `covariance`, scatters; no more than a batch's states are held."""
    moments: dict[Place, ClassMoments] = {}
    for _, means, norms in read:
        for site, rows, lengths in zip(sites, means, norms, strict=True):
            new = of_rows(rows, lengths, covariance)
            moments[site] = merged(moments[site], new) if site in moments else new
    return moments
