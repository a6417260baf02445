"""Rules as text: `if (harmful and not legal) or hate then refuse`."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import and_, or_

from nnsteer.errors import UserError
from nnsteer.program.condition import When
from nnsteer.program.program import Program

SHAPE = re.compile(r"\s*if\b(?P<condition>.*)\bthen\b(?P<behaviours>.*)", re.IGNORECASE | re.DOTALL)
KEYWORD = re.compile(r"\b(and|or|not)\b", re.IGNORECASE)


def program(rules: Sequence[str], conditions: Mapping[str, When], behaviours: Mapping[str, Program]) -> Program:
    """One program from rules over named conditions and behaviours.

    A rule is `if CONDITION then BEHAVIOUR` (or several, with commas); a condition has names, `and`, `or`, `not` and
    parentheses, `not` binding tightest and `or` loosest. CAST's `if C1 or C2 then B1` counts conditions and behaviours from
    one, in the order given. A behaviour that several rules name is applied once, when any of them holds. Raises UserError
    with the place of the mistake.
    """
    wanted: dict[str, list[When]] = {}
    for rule in rules:
        shape = SHAPE.fullmatch(rule)
        if shape is None:
            raise UserError(f"rule {rule!r}: expected `if CONDITION then BEHAVIOUR`")
        when = parse(rule, shape["condition"], shape.start("condition"), conditions)
        at = shape.start("behaviours")
        for part in shape["behaviours"].split(","):
            name = resolve(rule, part.strip(), at + len(part) - len(part.lstrip()), "B", "behaviour", behaviours)
            wanted.setdefault(name, []).append(when)
            at += len(part) + 1
    return sum((behaviours[name].when(reduce(or_, whens)) for name, whens in wanted.items()), Program())


def parse(rule: str, text: str, start: int, conditions: Mapping[str, When]) -> When:
    """The combination that `text`, which begins at `start` of the rule, describes."""
    lead = len(text) - len(text.lstrip())
    # Python's own grammar has the words, the precedence and the positions
    source = re.sub(r"\s", " ", KEYWORD.sub(lambda word: word[0].lower(), text.strip()))
    offset = start + lead
    try:
        tree = ast.parse(source, mode="eval").body
    except SyntaxError as error:
        raise mistake(rule, offset + (error.offset or 1) - 1, "expected names, and, or, not and parentheses") from None
    return build(rule, tree, offset, conditions)


def build(rule: str, node: ast.expr, offset: int, conditions: Mapping[str, When]) -> When:
    """The combination of a node of the condition's syntax tree."""
    match node:
        case ast.BoolOp(op=op, values=values):
            parts = [build(rule, value, offset, conditions) for value in values]
            return reduce(and_ if isinstance(op, ast.And) else or_, parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return ~build(rule, operand, offset, conditions)
        case ast.Name(id=name):
            return conditions[resolve(rule, name, offset + node.col_offset, "C", "condition", conditions)]
    raise mistake(rule, offset + node.col_offset, "expected a condition's name")


def resolve(rule: str, name: str, at: int, letter: str, kind: str, known: Mapping[str, object]) -> str:
    """The full name of a condition or behaviour, which may be given by number."""
    number = re.fullmatch(rf"{letter}(\d+)", name, re.IGNORECASE)
    if name in known:
        return name
    if number and 1 <= int(number[1]) <= len(known):
        return list(known)[int(number[1]) - 1]
    raise mistake(rule, at, f"no {kind} {name!r}, there is {', '.join(known) or 'none'}")


def mistake(rule: str, at: int, what: str) -> UserError:
    """An error with the rule's text from the mistake on."""
    return UserError(f"rule {rule!r}, character {at + 1} (at {rule[at : at + 20]!r}): {what}")
