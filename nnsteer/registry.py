"""What is looked up by name: what the package brings, what an installed package adds by an entry
point, and `module:function`. A function that is found so can be named in a file and found again."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
from typing import Any, TypeVar

from nnsteer.errors import UserError

T = TypeVar("T")
GROUPS = {
    "nnsteer.ops": "op",
    "nnsteer.methods": "method",
    "nnsteer.measures": "measure",
    "nnsteer.recipes": "recipe",
}
"""The groups of entry points, and what each holds."""


def named(group: str, builtin: Mapping[str, T], name: str) -> T:
    """The builtin of that name, which nothing shadows; else one from outside."""
    return builtin[name] if name in builtin else outside(group, builtin, name)


def outside(group: str, known: Iterable[str], name: str) -> Any:
    """The function that an entry point of the group names, or `module:function`. Raises UserError
    for a name that is neither; `known` are the builtin ones, for the list of what there is."""
    points = [point for point in entry_points(group=group) if point.name == name]
    if len({point.value for point in points}) > 1:
        values = " and ".join(point.value for point in points)
        raise UserError(f"{GROUPS[group]} {name}: is {values}; give the one that is meant")
    reference = points[0].value if points else name
    if ":" not in reference:
        raise UserError(unknown(group, known, name))
    return function(reference, f"{GROUPS[group]} {name}")


def unknown(group: str, known: Iterable[str], name: str) -> str:
    """What to say to a name that nothing has."""
    there = [*known, *(point.name for point in points_of(group))]
    others = f"or one's own as module:function or by an entry point in {group}"
    return (
        f"{GROUPS[group]} {name}: no such {GROUPS[group]}; there are {', '.join(there)}, {others}"
    )


def points_of(group: str) -> Iterator[EntryPoint]:
    """A group's entry points, by name."""
    yield from sorted(entry_points(group=group), key=lambda point: point.name)


def function(reference: str, what: str) -> Callable[..., Any]:
    """The function of `module:function`. Raises UserError, which begins with `what`."""
    path, _, name = reference.partition(":")
    try:
        target = attrgetter(name)(module(path, what))
    except AttributeError:
        raise UserError(f"{what}: {path} has no {name!r}; give another") from None
    if not callable(target):
        raise UserError(f"{what}: {reference} is not a function; give one as module:function")
    return target


def module(path: str, what: str) -> Any:
    """An imported module. Raises UserError, which begins with `what`, whatever goes wrong in it."""
    try:
        return import_module(path)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        remedy = "install its package, put its folder on PYTHONPATH, or mend it"
        raise UserError(f"{what}: {path!r} can't be imported ({reason}); {remedy}") from error


def reference(found: Callable[..., Any]) -> str:
    """`module:function` of a function that is found again by it. Raises UserError for another."""
    place = f"{found.__module__}:{found.__qualname__}" if inspect.isfunction(found) else str(found)
    hidden = not inspect.isfunction(found) or place.startswith("__main__:") or "<" in place
    if hidden or function(place, place) is not found:
        remedy = "put it by itself in a module, or save the other steps"
        raise UserError(f"{place}: only a function with a name of its own can be saved; {remedy}")
    return place


def code(found: Callable[..., Any]) -> str:
    """A hash of a function's source, whatever its comments and line breaks."""
    try:
        lines = inspect.getsource(found)
    except OSError as error:
        raise UserError(f"{reference(found)}: no source found ({error}); it needs a .py") from error
    source = ast.unparse(ast.parse(textwrap.dedent(lines)))
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def same(place: str, fingerprint: str) -> Callable[..., Any]:
    """The function that `reference` and `code` told of. A file can name any module: one is imported
    only for an entry point of an installed package. Raises UserError for another module that is not
    imported yet, and where the function is another."""
    path = place.partition(":")[0]
    if path not in sys.modules and path not in {point.module for point in points_of("nnsteer.ops")}:
        remedy = f"where you trust it, `import {path}` before loading it"
        raise UserError(f"op {place}: a file has no module imported; {remedy}")
    op = function(place, f"op {place}")
    if not inspect.isfunction(op) or code(op) != fingerprint:
        raise UserError(f"op {place}: has changed since it was saved; restore it, or save it again")
    return op
