"""A verb's module without the libraries that it runs on, for its --help: mocks stand in for them,
as they do where documentation is built. Such a module can say what its options are, and nothing
else: the process ends with the help."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

HEAVY = {"torch", "transformers", "nnsight", "scipy", "matplotlib", "datasets", "safetensors"}
HEAVY |= {"tokenizers", "concept_erasure"}


class Mocked(MetaPathFinder, Loader):
    """Finds a mock, which has every name, for every heavy module and its parts."""

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        heavy = name.partition(".")[0] in HEAVY
        return ModuleSpec(name, self, is_package=True) if heavy else None

    def create_module(self, _spec: ModuleSpec) -> Any:
        return MagicMock()

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it to run."""


def sketched(name: str) -> Any:
    """The module, of which only the docstring and `Config` are to be used. Where torch is loaded
    already, it is the whole one."""
    if "torch" not in sys.modules:
        sys.meta_path.insert(0, Mocked())
    return import_module(name)
