"""The nouns as JSON and named tensors, and back: what `files` writes. A dataclass becomes its name
and its fields."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, get_args

from torch import Tensor

from nnsteer import registry
from nnsteer.program.condition import When
from nnsteer.program.direction import Direction
from nnsteer.program.editor import Editor, Gate
from nnsteer.program.identity import ModelId, Vouch
from nnsteer.program.op import Custom, Op
from nnsteer.program.program import Program, Step
from nnsteer.program.site import Place
from nnsteer.program.span import Reading

WHOLES = (Program, Step, Direction, Editor, Gate, ModelId, Vouch)
NOUNS: tuple[type, ...] = (*WHOLES, *get_args(Place | Reading | When | Op))
NAMES = {noun.__name__: noun for noun in NOUNS if noun is not Custom}


@dataclass(frozen=True)
class Store:
    """Collects the tensors of what it encodes; a direction or editor that occurs again is stored
    once."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    shared: list[dict] = field(default_factory=list)
    numbers: dict[Direction | Editor, int] = field(default_factory=dict)

    def encode(self, value: Any) -> Any:
        """`value` as JSON; its tensors and shared parts are in the store."""
        match value:
            case Direction() | Editor():
                if value not in self.numbers:
                    encoded = self.encode_fields(value)
                    self.numbers[value] = len(self.shared)
                    self.shared.append(encoded)
                return {"shared": self.numbers[value]}
            case Tensor():
                name = str(len(self.tensors))
                self.tensors[name] = value.clone()  # safetensors stores none that share memory
                return {"tensor": name}
            case tuple():
                return {"tuple": [self.encode(item) for item in value]}
            case list():
                return [self.encode(item) for item in value]
            case dict():
                return {"dict": {key: self.encode(item) for key, item in value.items()}}
            case Custom():
                return self.encode_custom(value)
        return self.encode_fields(value) if is_dataclass(value) else value

    def encode_custom(self, value: Custom) -> dict:
        """A function by its name, with hashes of its source and its tensors: a study's keys hang on
        both."""
        facts = {
            "custom": registry.reference(value.function),
            "code": registry.code(value.function),
        }
        return facts | {"hash": hashed(value.tensors), "tensors": self.encode(value.tensors)}

    def encode_fields(self, value: Any) -> dict:
        """A dataclass as its name and fields. A `vouched` that is None is left out, so that
        versions without that field read what nobody vouched for."""
        parts = {part.name: getattr(value, part.name) for part in fields(value)}
        if parts.get("vouched", ...) is None:
            del parts["vouched"]
        encoded = {name: self.encode(part) for name, part in parts.items()}
        return {"is": type(value).__name__, "fields": encoded}


def hashed(tensors: tuple[Tensor, ...]) -> str:
    """Sixteen hex digits of values, shapes and dtypes."""
    facts = [[str(tensor.dtype), list(tensor.shape), tensor.tolist()] for tensor in tensors]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def decode(fact: Any, tensors: dict[str, Tensor], shared: list) -> Any:
    """The inverse of `Store.encode`."""

    def decoded(part: Any) -> Any:
        return decode(part, tensors, shared)

    match fact:
        case list():
            return [decoded(item) for item in fact]
        case {"shared": number}:
            return shared[number]
        case {"tensor": name}:
            return tensors[name]
        case {"custom": place, "code": code}:
            return Custom(registry.same(place, code), decoded(fact["tensors"]))
        case {"tuple": items}:
            return tuple(decoded(item) for item in items)
        case {"dict": items}:
            return {key: decoded(item) for key, item in items.items()}
        case dict():
            parts = {name: decoded(part) for name, part in fact["fields"].items()}
            return NAMES[fact["is"]](**parts)
    return fact
