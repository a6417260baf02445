"""What was read: for each site, one pooled state per text of a contrast set."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nnsteer.fit.moments import Moments, of_rows
from nnsteer.program.direction import Direction
from nnsteer.program.identity import ModelId
from nnsteer.program.site import Place, named
from nnsteer.program.span import Reading

Norms = dict[Place, tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False, repr=False)
class Activations:
    """`positive[site]` and `negative[site]` are fp32 on the CPU, [text, hidden]: the mean over
    `span` of each text's tokens, in the order of the contrast set."""

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
        positive, negative = (
            {site: of_rows(rows, self.norms[site][i], covariance) for site, rows in side.items()}
            for i, side in enumerate((self.positive, self.negative))
        )
        return Moments(positive, negative, self.span, self.model, self.data)

    def direction(
        self, site: Place, method: str, vector: Tensor, around: Tensor, norms: Tensor
    ) -> Direction:
        """`vector` [hidden] as a direction fitted at `site`, about the mean of the states `around`
        [text, hidden]; `norms` [text] are those of the states that it was fitted on."""
        vector, origin, norm = vector.float(), around.mean(0), norms.mean().item()
        return Direction(vector, site, self.span, method, origin, self.model, self.data, norm)

    def __repr__(self) -> str:
        positive, negative = (next(iter(s.values()), ()) for s in (self.positive, self.negative))
        texts = f"{len(positive)} positive and {len(negative)} negative texts"
        return f"Activations: {texts} over {self.span} at {named(self.positive)}"
