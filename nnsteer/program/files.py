"""Directions, conditions and programs on disk: safetensors with JSON. Nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nnsteer.errors import UserError
from nnsteer.program.condition import When
from nnsteer.program.direction import AnyDirections, Directions, listed
from nnsteer.program.encode import Store, decode
from nnsteer.program.program import Program
from nnsteer.writing import replacing

FORMAT = "nnsteer 1"
LIBRARIES = ("nnsteer", "nnsight", "torch", "transformers")


def save_directions(path: str | Path, directions: AnyDirections) -> None:
    """Writes directions (one, a list or a mapping) with where each came from. Raises UserError
    where there are none, for anything else, and where the file can't be written."""
    items = list(listed(directions))
    if not items:
        raise UserError(f"{path}: no directions to write; give at least one")
    save(path, "directions", items)


def load_directions(path: str | Path) -> Directions:
    """Directions by site. Raises UserError when the file holds something else."""
    return Directions({direction.site: direction for direction in load(path, "directions")})


def save_programs(path: str | Path, programs: Mapping[str, Program]) -> None:
    """Writes named programs; a direction that several steps use is stored once. A function of the
    user's own is written as the name of its module and its own; raises UserError for one that can't
    be found by it, as in a script."""
    save(path, "programs", dict(programs))


def load_programs(path: str | Path) -> dict[str, Program]:
    """Programs by name. A function of the user's own is found in a module that is imported already,
    or that an installed package names as an op. Raises UserError where it is not, or has changed,
    and when the file holds something else."""
    return load(path, "programs")


def save_conditions(path: str | Path, conditions: Mapping[str, When]) -> None:
    """Writes named conditions, for rules."""
    save(path, "conditions", dict(conditions))


def load_conditions(path: str | Path) -> dict[str, When]:
    """Conditions by name. Raises UserError when the file holds something else."""
    return load(path, "conditions")


def save(path: str | Path, kind: str, value: object) -> None:
    """One file, complete or not there at all."""
    store = Store()
    facts = json.dumps({"value": store.encode(value), "shared": store.shared})
    versions = json.dumps({name: version(name) for name in LIBRARIES})
    metadata = {"format": FORMAT, "kind": kind, "facts": facts, "versions": versions}
    with replacing(path) as partial:
        save_file(store.tensors, partial, metadata)


def load(path: str | Path, kind: str) -> Any:
    """The value in a file that this module wrote."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no dict
    except (OSError, SafetensorError) as error:
        mistake = f"can't be read as safetensors ({error})"
        raise UserError(f"{path}: {mistake}; give a file written by nnsteer") from error
    if metadata.get("format") != FORMAT or metadata.get("kind") != kind:
        mistake = (
            f"expected {kind} saved by nnsteer, found {metadata.get('kind', 'something else')}"
        )
        raise UserError(f"{path}: {mistake}; give another file")
    facts = json.loads(metadata["facts"])
    shared: list = []
    for fact in facts["shared"]:
        shared.append(decode(fact, tensors, shared))
    return decode(facts["value"], tensors, shared)
