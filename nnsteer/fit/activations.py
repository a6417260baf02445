"""What was read: for each site, one pooled state per text of a contrast set."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nnsteer.fit.moments import Moments, of_rows
from nnsteer.program.identity import ModelId
from nnsteer.program.site import Place, named
from nnsteer.program.span import Reading

Norms = dict[Place, tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False, repr=False)
class Activations:
    """`positive[site]` and `negative[site]` are fp32 on the CPU, [text, hidden]: the mean over `span` of each text's
    tokens, in the order of the contrast set."""

    positive: dict[Place, Tensor]
    negative: dict[Place, Tensor]
    norms: Norms
    """The mean norm of each text's states, [text], of the positive and of the negative side."""
    span: Reading
    model: ModelId
    data: str
    """Fingerprint of the contrast set."""

    def moments(self, covariance: bool = True) -> Moments:
        """Means and scatters of both classes."""
        positive = {site: of_rows(rows, self.norms[site][0], covariance) for site, rows in self.positive.items()}
        negative = {site: of_rows(rows, self.norms[site][1], covariance) for site, rows in self.negative.items()}
        return Moments(positive, negative, self.span, self.model, self.data)

    def __repr__(self) -> str:
        texts = [f"{len(next(iter(side.values()), ()))}" for side in (self.positive, self.negative)]
        where = f"over {self.span} at {named(self.positive)}"
        return f"Activations: {texts[0]} positive and {texts[1]} negative texts {where}"
