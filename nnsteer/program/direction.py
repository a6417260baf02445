"""A direction in the residual stream, with its natural length and where it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.program.identity import ModelId
from nnsteer.program.names import Unit
from nnsteer.program.site import Place
from nnsteer.program.span import Reading


@dataclass(frozen=True, eq=False)
class Direction:
    """`vector` [hidden] points from the negative towards the positive class. Its length is the method's natural one (for a
    mean difference, the distance between the class means), so a strength of 1 moves a state by one such length. `unit()` and
    `relative()` change the length, and with it the unit of every strength."""

    vector: Tensor
    site: Place
    """Where it was read, and where it is to be written."""
    span: Reading
    """The tokens whose mean was read."""
    method: str
    origin: Tensor
    """[hidden], the mean of the negative class: the reference of an affine edit (ACE's r-)."""
    model: ModelId
    data: str
    """Fingerprint of the contrast set."""
    norm: float | None = None
    """The mean norm of the states read at the site, where it was measured."""
    boundary: float | None = None
    """For a probe: where it decides, as a coordinate along the direction (0 the negative mean, 1 a vector further)."""

    def unit(self) -> Direction:
        """The same direction with length 1, for strengths in absolute units."""
        return self.with_length(1.0)

    def relative(self) -> Direction:
        """The same direction as long as the mean state at its site, for strengths as a fraction of the residual norm."""
        if self.norm is None:
            raise UserError(f"{self}: the residual norm at its site was not measured; fit it again from recorded activations")
        return self.with_length(self.norm)

    def in_unit(self, unit: Unit) -> Direction:
        """The same direction as long as strengths are counted in: its own length, 1 (`absolute`) or the mean state (`norm`)."""
        match unit:
            case "length":
                return self
            case "absolute":
                return self.unit()
            case "norm":
                return self.relative()

    def with_length(self, length: float) -> Direction:
        """The same direction with another length. Raises UserError for a direction of length 0."""
        own = self.vector.norm().item()
        if own == 0:
            raise UserError(f"{self}: a direction of length 0 has no unit vector")
        boundary = None if self.boundary is None else self.boundary * own / length
        return replace(self, vector=self.vector * (length / own), boundary=boundary)

    def moved(self, site: Place) -> Direction:
        """The same direction to be written, or scored, at another site than it was read at."""
        return replace(self, site=site)

    def with_origin(self, origin: Tensor) -> Direction:
        """The same direction with another reference [hidden] for affine edits."""
        return replace(self, origin=origin.float(), boundary=None)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything above."""
        place, span = [str(self.site), asdict(self.site)], [str(self.span), asdict(self.span)]
        facts = json.dumps([place, span, self.method, asdict(self.model), self.data, self.norm, self.boundary])
        values = self.vector.numpy().tobytes() + self.origin.numpy().tobytes()
        return hashlib.sha256(facts.encode() + values).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Direction) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __str__(self) -> str:
        return f"{self.method} at {self.site} over {self.span}, length {self.vector.norm():.3g}"


Directions = Mapping[Any, Direction]
"""One direction per site (the key: a `Place`), as the functions of `fit` return them."""
