"""Strict mode: in this process, and stricter than NDIF. What a payload may name is listed, and so
is what its code may import and call."""

from __future__ import annotations

import builtins
import pickle
from types import FunctionType, ModuleType
from typing import Any

from cloudpickle import cloudpickle
from nnsight.intervention import serialization
from nnsight.intervention.serialization import CustomCloudUnpickler

PACKAGES = {"torch", "nnsight", "transformers", "collections", "typing", "operator", "math"}
"""What every NDIF has, and nothing that reaches outside the process by itself."""
HELPERS = {"subimport", "dynamic_subimport", "_builtin_type"}
"""Of cloudpickle's; those for bytecode, which another Python can't read, are not here."""
FORBIDDEN = {
    "open",
    "eval",
    "exec",
    "compile",
    "input",
    "breakpoint",
    "globals",
    "locals",
    "vars",
    "exit",
    "quit",
    "help",
}


class Rejected(pickle.UnpicklingError):
    """A payload, or code in it, that reaches for what it may not."""


def allowed_import(name: str, *args: Any) -> ModuleType:
    """`__import__`, of listed packages."""
    if name.partition(".")[0] not in PACKAGES | {"__future__"}:
        raise Rejected(f"strict: the code imports {name}")
    return builtins.__import__(name, *args)


BUILTINS = {n: v for n, v in vars(builtins).items() if n not in FORBIDDEN} | {
    "__import__": allowed_import
}


def subimport(name: str) -> ModuleType:
    """cloudpickle's, of listed packages."""
    if name.partition(".")[0] not in PACKAGES:
        raise Rejected(f"strict: the payload names {name}")
    return cloudpickle.subimport(name)


def load_function(*args: Any) -> FunctionType:
    """nnsight's, with fewer builtins."""
    free = serialization._load_function(*args)
    tied = FunctionType(free.__code__, {"__builtins__": BUILTINS}, free.__name__, free.__defaults__)
    tied.__kwdefaults__, tied.__annotations__ = free.__kwdefaults__, free.__annotations__
    return tied


INSTEAD = {
    ("cloudpickle.cloudpickle", "subimport"): subimport,
    ("nnsight.intervention.serialization", "_load_function"): load_function,
}


class StrictUnpickler(CustomCloudUnpickler):
    """Rebuilds nothing but what is listed."""

    def find_class(self, module: str, name: str) -> Any:
        """The object of that name, if it may be named."""
        root = module.partition(".")[0]
        known = (
            root in PACKAGES
            or (root == "builtins" and name in BUILTINS)
            or (root == "cloudpickle" and name in HELPERS)
        )
        if not known:
            raise Rejected(f"strict: the payload names {module}.{name}")
        return INSTEAD.get((module, name)) or super().find_class(module, name)
