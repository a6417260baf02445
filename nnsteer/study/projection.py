"""The states that directions were fitted on, in the plane in which they differ most: for the
report."""

from __future__ import annotations

import torch
from torch import Tensor

from nnsteer.fit.activations import Activations

SHOWN = 200  # texts a side


def projections(read: Activations, names: dict[str, str]) -> dict:
    """The first texts of either side at every layer along the first two principal components, and
    the share of their variance that each explains. `names` is what the two sides are called."""
    layers = {}
    for site, positive in read.positive.items():
        points, shares = plane(positive[:SHOWN], read.negative[site][:SHOWN])
        layers[str(site.layer)] = {
            "points": [[float(f"{x:.4g}") for x in point] for point in points.tolist()],
            "shares": shares,
        }
    sides = (
        min(SHOWN, len(rows))
        for rows in (next(iter(read.positive.values())), next(iter(read.negative.values())))
    )
    labels = [
        label
        for label, n in zip((names["positive"], names["negative"]), sides, strict=True)
        for _ in range(n)
    ]
    return {"read": str(read.span), "labels": labels, "layers": layers}


def plane(positive: Tensor, negative: Tensor) -> tuple[Tensor, list[float]]:
    """The rows [text, hidden] of both sides, one below the other, as [text, 2], each component
    turned so that the positive side lies further along it; and each component's share of the
    variance."""
    rows = torch.cat([positive, negative]).double()
    centred = rows - rows.mean(0)
    _, lengths, components = torch.linalg.svd(centred, full_matrices=False)
    points = centred @ components[:2].mT
    ahead = points[: len(positive)].mean(0) >= points[len(positive) :].mean(0)
    shares = lengths[:2] ** 2 / (lengths**2).sum()
    return points * torch.where(ahead, 1.0, -1.0), [round(share, 4) for share in shares.tolist()]
