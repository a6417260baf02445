"""Means and scatters of what was read: all that most directions need, whatever the data's size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.program.identity import ModelId
from nnsteer.program.site import Place, named
from nnsteer.program.span import Reading


@dataclass(frozen=True, eq=False, repr=False)
class ClassMoments:
    """Of one class at one site, in fp64: `mean` [hidden], `scatter` [hidden, hidden], the sum of
    squared deviations from it (None where it was not asked for), and the mean norm of the
    states."""

    count: int
    mean: Tensor
    scatter: Tensor | None
    norm: float

    @property
    def covariance(self) -> Tensor:
        """Maximum-likelihood covariance [hidden, hidden]."""
        if self.scatter is None:
            raise UserError(
                "this method needs covariances: record with moments(..., covariance=True)"
            )
        return self.scatter / self.count

    def __repr__(self) -> str:
        scatter = "no covariance" if self.scatter is None else "covariance"
        return f"ClassMoments: {self.count} texts, [{len(self.mean)}], {scatter}"


@dataclass(frozen=True, eq=False, repr=False)
class Moments:
    """Both classes' moments at each site."""

    positive: dict[Place, ClassMoments]
    negative: dict[Place, ClassMoments]
    span: Reading
    model: ModelId
    data: str
    """Fingerprint of the contrast set."""

    def __repr__(self) -> str:
        sides = (self.positive, self.negative)
        positive, negative = (next((m.count for m in side.values()), 0) for side in sides)
        texts = f"{positive} positive and {negative} negative texts"
        return f"Moments: {texts} over {self.span} at {named(self.positive)}"


def of_rows(rows: Tensor, norms: Tensor, covariance: bool) -> ClassMoments:
    """The moments of states [text, hidden] whose tokens had the mean norms [text]."""
    x = rows.double()
    mean = x.mean(0)
    scatter = (x - mean).mT @ (x - mean) if covariance else None
    return ClassMoments(len(x), mean, scatter, norms.double().mean().item())


def merged(a: ClassMoments, b: ClassMoments) -> ClassMoments:
    """The moments of both sets of rows together, exactly (Chan, Golub and LeVeque 1979)."""
    n = a.count + b.count
    delta = b.mean - a.mean
    mean = a.mean + delta * (b.count / n)
    norm = a.norm + (b.norm - a.norm) * (b.count / n)
    if a.scatter is None or b.scatter is None:
        return ClassMoments(n, mean, None, norm)
    between = torch.outer(delta, delta) * (a.count * b.count / n)
    return ClassMoments(n, mean, a.scatter + b.scatter + between, norm)
