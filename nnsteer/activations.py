"""What was read: for each site, one pooled state per text of a contrast set."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nnsteer.identity import ModelId
from nnsteer.site import Site
from nnsteer.span import Reading


@dataclass(frozen=True, eq=False)
class Activations:
    """`positive[site]` and `negative[site]` are fp32 on the CPU, [text, hidden]: the mean over `span` of each text's
    tokens, in the order of the contrast set."""

    positive: dict[Site, Tensor]
    negative: dict[Site, Tensor]
    span: Reading
    model: ModelId
    data: str
    """Fingerprint of the contrast set."""
