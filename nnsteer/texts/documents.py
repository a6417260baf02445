"""Real documents on every machine: Python's standard library, its functions and its prose."""

from __future__ import annotations

import ast
import hashlib
import pydoc_data.topics
import re
import sysconfig
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

Part = Literal["train", "fit", "tune", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
# percent of modules; the bundled organism is trained on "train"
SHARES: dict[Part, int] = {"train": 70, "fit": 10, "tune": 8, "test": 12}
OTHER_PROGRAMS = {"test", "tests", "idlelib", "lib2to3", "turtledemo"}
LEFT_OUT = {"site-packages", "encodings", "pydoc_data", "__pycache__"} | OTHER_PROGRAMS
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
CODE_LENGTH, PROSE_LENGTH = range(150, 701), range(100, 701)  # characters
PLAIN = 0.93  # least share of letters, spaces and commas in prose


def code(part: Part) -> list[str]:
    """Functions, without comments and docstrings, of the modules in one part of the library, in the
    order of their modules; none that an earlier part has too."""
    return new_in(part, lambda part: library(part)[0])


def prose(part: Part) -> list[str]:
    """Paragraphs of docstrings and help topics of the same modules, each on one line, likewise."""
    return new_in(part, lambda part: library(part)[1])


def new_in(part: Part, texts: Callable[[Part], list[str]]) -> list[str]:
    """The texts of a part without those of the parts before it, as two modules can share one."""
    earlier = set(chain.from_iterable(map(texts, PARTS[: PARTS.index(part)])))
    return [text for text in texts(part) if text not in earlier]


@cache
def library(part: Part) -> tuple[list[str], list[str]]:
    """Code and prose of one part, each text once."""
    codes: list[str] = []
    texts: list[str] = []
    for tree in modules(part):
        documented = [node for node in ast.walk(tree) if isinstance(node, DOCUMENTED)]
        texts += [ast.get_docstring(node) or "" for node in documented]
        codes += functions(tree)
    texts += [text for topic, text in pydoc_data.topics.topics.items() if part_of(topic) == part]
    paragraphs = [" ".join(part.split()) for text in texts for part in text.split("\n\n")]
    return (
        [text for text in dict.fromkeys(codes) if len(text) in CODE_LENGTH],
        [
            text
            for text in dict.fromkeys(paragraphs)
            if len(text) in PROSE_LENGTH and is_prose(text)
        ],
    )


def modules(part: Part) -> Iterator[ast.Module]:
    """The syntax trees of one part of the library."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted([*root.glob("*.py"), *root.glob("*/*.py")]):
        name = file.relative_to(root)
        if not LEFT_OUT & set(name.parts) and part_of(name.as_posix()) == part:
            yield ast.parse(file.read_text(encoding="utf-8"))


def part_of(name: str) -> Part:
    """The part that a module or topic is in, by the hash of its name."""
    place = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100
    for part, share in SHARES.items():
        place -= share
        if place < 0:
            return part
    raise AssertionError("the shares don't add up to 100")


def functions(tree: ast.Module) -> Iterator[str]:
    """A module's functions and methods, as Python writes them; the tree loses their docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
            yield ast.unparse(node)


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph is sentences, and neither code nor a table."""
    plain = len(re.findall(r"[A-Za-z ,]", paragraph))
    return plain >= PLAIN * len(paragraph) and paragraph[0].isupper() and paragraph[-1] in ".:"
