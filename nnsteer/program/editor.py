"""A fitted affine map of the residual stream: an eraser, or a transport between classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from nnsteer.program.identity import ModelId, digest, facts_of
from nnsteer.program.site import Place
from nnsteer.program.span import Reading


@dataclass(frozen=True, eq=False)
class Gate:
    """Lets an edit touch a token only where its state lies on one side: state . vector > threshold
    (`above`) or not."""

    vector: Tensor = field(repr=False)
    threshold: float
    above: bool


@dataclass(frozen=True, eq=False, repr=False)
class Editor:
    """h - ((h - center) @ right.T) @ left + shift, with left and right [rank, hidden], center and
    shift [hidden]; only for tokens that the gate lets through, where there is one."""

    left: Tensor
    right: Tensor
    center: Tensor
    shift: Tensor
    gate: Gate | None
    site: Place
    span: Reading
    method: str
    model: ModelId
    data: str

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything above."""
        facts = json.dumps(facts_of(self))
        tensors = [self.left, self.right, self.center, self.shift]
        if self.gate is not None:
            facts += f"{self.gate.threshold} {self.gate.above}"
            tensors.append(self.gate.vector)
        return digest(facts, tensors)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Editor) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __str__(self) -> str:
        return f"{self.method} at {self.site} over {self.span}, rank {len(self.left)}"

    def __repr__(self) -> str:
        return f"Editor: {self}"


Editors = Mapping[Any, Editor]
"""One editor per site, as the functions of `fit` return them."""
