"""Directions, programs and activations on disk: safetensors with JSON metadata. Nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nnsteer.activations import Activations
from nnsteer.direction import Direction
from nnsteer.errors import UserError
from nnsteer.identity import ModelId
from nnsteer.program import Ablate, Add, Affine, Condition, Op, Program, Step
from nnsteer.site import Site
from nnsteer.span import Last, Reading, Span

FORMAT = "nnsteer 1"
LIBRARIES = ("nnsteer", "nnsight", "torch", "transformers")
OPS: dict[str, type[Add] | type[Ablate] | type[Affine]] = {"add": Add, "ablate": Ablate, "affine": Affine}


def save_directions(path: Path, directions: Iterable[Direction]) -> None:
    """Writes directions with where each came from."""
    facts, tensors = describe(list(directions))
    write(path, "directions", {"directions": facts}, tensors)


def load_directions(path: Path) -> dict[Site, Direction]:
    """Directions by site. Raises UserError when the file holds something else."""
    meta, tensors = read(path, "directions")
    return {direction.site: direction for direction in rebuild(meta["directions"], tensors)}


def save_programs(path: Path, programs: Mapping[str, Program]) -> None:
    """Writes named programs; a direction that several steps use is stored once."""
    directions = list(dict.fromkeys(d for program in programs.values() for d in program.directions))
    facts, tensors = describe(directions)
    number = {direction: i for i, direction in enumerate(directions)}
    steps = {name: [step_facts(step, number) for step in program.steps] for name, program in programs.items()}
    write(path, "programs", {"directions": facts, "programs": steps}, tensors)


def load_programs(path: Path) -> dict[str, Program]:
    """Programs by name."""
    meta, tensors = read(path, "programs")
    directions = rebuild(meta["directions"], tensors)
    return {name: Program(tuple(build_step(s, directions) for s in steps)) for name, steps in meta["programs"].items()}


def save_activations(path: Path, activations: Activations) -> None:
    """Writes the pooled states of both classes."""
    sites = list(activations.positive)
    tensors = {f"positive.{i}": activations.positive[site] for i, site in enumerate(sites)}
    tensors |= {f"negative.{i}": activations.negative[site] for i, site in enumerate(sites)}
    facts = {
        "sites": [asdict(site) for site in sites],
        "span": asdict(activations.span),
        "model": asdict(activations.model),
        "data": activations.data,
    }
    write(path, "activations", facts, tensors)


def load_activations(path: Path) -> Activations:
    """The pooled states of both classes."""
    meta, tensors = read(path, "activations")
    sites = [Site(**site) for site in meta["sites"]]
    return Activations(
        positive={site: tensors[f"positive.{i}"] for i, site in enumerate(sites)},
        negative={site: tensors[f"negative.{i}"] for i, site in enumerate(sites)},
        span=reading(meta["span"]),
        model=ModelId(**meta["model"]),
        data=meta["data"],
    )


def describe(directions: list[Direction]) -> tuple[list[dict], dict[str, Tensor]]:
    """JSON facts and tensors of directions, numbered in order."""
    facts: list[dict] = []
    tensors: dict[str, Tensor] = {}
    for i, d in enumerate(directions):
        facts.append(
            {"site": asdict(d.site), "span": asdict(d.span), "method": d.method, "model": asdict(d.model), "data": d.data}
        )
        # clones, because safetensors stores no two tensors that share memory (a control shares its origin)
        tensors |= {f"vector.{i}": d.vector.clone(), f"origin.{i}": d.origin.clone()}
    return facts, tensors


def rebuild(facts: list[dict], tensors: dict[str, Tensor]) -> list[Direction]:
    """The inverse of `describe`."""
    return [
        Direction(
            vector=tensors[f"vector.{i}"],
            site=Site(**fact["site"]),
            span=reading(fact["span"]),
            method=fact["method"],
            origin=tensors[f"origin.{i}"],
            model=ModelId(**fact["model"]),
            data=fact["data"],
        )
        for i, fact in enumerate(facts)
    ]


def reading(facts: dict) -> Reading:
    """The tokens that were read, from their saved fields."""
    return Last(**facts) if "k" in facts else Span(**facts)


def step_facts(step: Step, number: Mapping[Direction, int]) -> dict:
    """A step as JSON, its directions by number."""
    amount = step.op.alpha if isinstance(step.op, Affine) else step.op.strength
    when = step.when and {
        "direction": number[step.when.direction],
        "threshold": step.when.threshold,
        "fires_when": step.when.fires_when,
        "score": step.when.score,
        "span": asdict(step.when.span),
    }
    op = {"name": type(step.op).__name__.lower(), "direction": number[step.op.direction], "amount": amount}
    return {"op": op, "site": asdict(step.site), "span": asdict(step.span), "when": when}


def build_step(facts: dict, directions: list[Direction]) -> Step:
    """The inverse of `step_facts`."""
    named, when = facts["op"], facts["when"]
    op: Op = OPS[named["name"]](directions[named["direction"]], named["amount"])
    condition = when and Condition(
        directions[when["direction"]], when["threshold"], when["fires_when"], when["score"], Span(**when["span"])
    )
    return Step(op, Site(**facts["site"]), Span(**facts["span"]), condition)


def write(path: Path, kind: str, facts: dict, tensors: dict[str, Tensor]) -> None:
    """One file, complete or not there at all."""
    versions = {name: version(name) for name in LIBRARIES}
    metadata = {"format": FORMAT, "kind": kind, "facts": json.dumps(facts), "versions": json.dumps(versions)}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata)
    partial.replace(path)


def read(path: Path, kind: str) -> tuple[dict, dict[str, Tensor]]:
    """The facts and tensors of a file that this module wrote."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  safe_open is no dict
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: can't be read as safetensors ({error}); give a file written by nnsteer") from error
    if metadata.get("format") != FORMAT or metadata.get("kind") != kind:
        found = metadata.get("kind", "something else")
        raise UserError(f"{path}: expected {kind} saved by nnsteer, found {found}; give another file")
    return json.loads(metadata["facts"]), tensors
