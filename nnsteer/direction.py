"""A direction in the residual stream, with its natural length and where it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from torch import Tensor

from nnsteer.identity import ModelId
from nnsteer.site import Site
from nnsteer.span import Reading


@dataclass(frozen=True, eq=False)
class Direction:
    """`vector` [hidden] points from the negative towards the positive class. Its length is the method's natural one (for a
    mean difference, the distance between the class means), so a strength of 1 moves a state by one such length."""

    vector: Tensor
    site: Site
    """Where it was read, and where it is to be written."""
    span: Reading
    """The tokens whose mean was read."""
    method: str
    origin: Tensor
    """[hidden], the mean of the negative class: the reference of an affine edit (ACE's r-)."""
    model: ModelId
    data: str
    """Fingerprint of the contrast set."""

    def unit(self) -> Direction:
        """The same direction with length 1, for strengths in absolute units."""
        return replace(self, vector=self.vector / self.vector.norm())

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything above."""
        facts = json.dumps([asdict(self.site), asdict(self.span), self.method, asdict(self.model), self.data])
        values = self.vector.numpy().tobytes() + self.origin.numpy().tobytes()
        return hashlib.sha256(facts.encode() + values).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Direction) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __str__(self) -> str:
        return f"{self.method} at {self.site} over {self.span}, length {self.vector.norm():.3g}"


Directions = Mapping[Site, Direction]
"""One direction per site, as the functions of `fit` return them."""
