"""The nouns as JSON and named tensors, and back: what `formats` writes. A dataclass becomes its name and fields."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from torch import Tensor

from nnsteer import registry
from nnsteer.program import condition, op
from nnsteer.program.direction import Direction
from nnsteer.program.editor import Editor, Gate
from nnsteer.program.identity import ModelId, Vouch
from nnsteer.program.program import Program, Step
from nnsteer.program.site import Head, Site
from nnsteer.program.span import Last, Positions, Span

OPS = (op.Add, op.Ablate, op.AblateSubspace, op.Affine, op.Clamp, op.Rotate, op.Edit, op.KeepNorm, op.BoundNorm)
CONDITIONS = (condition.Condition, condition.AllOf, condition.AnyOf)
NOUNS = (Program, Step, Direction, Editor, Gate, ModelId, Vouch, Site, Head, Span, Positions, Last, *OPS, *CONDITIONS)
NAMES: dict[str, type] = {noun.__name__: noun for noun in NOUNS}


@dataclass(frozen=True)
class Store:
    """Collects the tensors of what it encodes; a direction or editor that occurs again is stored once."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    shared: list[dict] = field(default_factory=list)
    numbers: dict[Direction | Editor, int] = field(default_factory=dict)

    def encode(self, value: object) -> Any:
        """`value` as JSON; its tensors and shared parts are in the store."""
        if isinstance(value, Direction | Editor):
            if value not in self.numbers:
                encoded = self.encode_fields(value)
                self.numbers[value] = len(self.shared)
                self.shared.append(encoded)
            return {"shared": self.numbers[value]}
        if isinstance(value, Tensor):
            name = str(len(self.tensors))
            self.tensors[name] = value.clone()  # safetensors stores no two tensors that share memory
            return {"tensor": name}
        if isinstance(value, tuple):
            return {"tuple": [self.encode(item) for item in value]}
        if isinstance(value, list):
            return [self.encode(item) for item in value]
        if isinstance(value, dict):
            return {"dict": {key: self.encode(item) for key, item in value.items()}}
        if isinstance(value, op.Custom):
            return self.encode_custom(value)
        return self.encode_fields(value) if is_dataclass(value) else value

    def encode_custom(self, value: op.Custom) -> dict:
        """A function by its name, with hashes of its source and its tensors: a study's keys hang on both."""
        place, code = registry.reference(value.function), registry.code(value.function)
        return {"custom": place, "code": code, "hash": hashed(value.tensors), "tensors": self.encode(value.tensors)}

    def encode_fields(self, value: Any) -> dict:
        """A dataclass as its name and fields. A `vouched` that is None is left out, so that versions
        without that field read what nobody vouched for."""
        found = {f.name: getattr(value, f.name) for f in fields(value)}
        if found.get("vouched", ...) is None:
            del found["vouched"]
        encoded = {name: self.encode(own) for name, own in found.items()}
        return {"is": type(value).__name__, "fields": encoded}


def hashed(tensors: tuple[Tensor, ...]) -> str:
    """Sixteen hex digits of values, shapes and dtypes."""
    facts = [[str(tensor.dtype), list(tensor.shape), tensor.tolist()] for tensor in tensors]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def decode(fact: Any, tensors: dict[str, Tensor], shared: list) -> Any:
    """The inverse of `Store.encode`."""
    if isinstance(fact, list):
        return [decode(item, tensors, shared) for item in fact]
    if not isinstance(fact, dict):
        return fact
    if "shared" in fact:
        return shared[fact["shared"]]
    if "tensor" in fact:
        return tensors[fact["tensor"]]
    if "custom" in fact:
        return op.Custom(registry.same(fact["custom"], fact["code"]), decode(fact["tensors"], tensors, shared))
    if "tuple" in fact:
        return tuple(decode(item, tensors, shared) for item in fact["tuple"])
    if "dict" in fact:
        return {key: decode(item, tensors, shared) for key, item in fact["dict"].items()}
    return NAMES[fact["is"]](**{name: decode(item, tensors, shared) for name, item in fact["fields"].items()})
