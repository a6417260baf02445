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
ITEM = re.compile(r"(?:^|,)\s*([^,]*)")
GRAMMAR = "expected names, and, or, not and parentheses"


def program(
    rules: Sequence[str], conditions: Mapping[str, When], behaviours: Mapping[str, Program]
) -> Program:
    """One program from rules over named conditions and behaviours.

    A rule is `if CONDITION then BEHAVIOUR` (or several, with commas); a condition has names, `and`,
    `or`, `not` and parentheses, `not` binding tightest and `or` loosest. CAST's `if C1 or C2 then
    B1` counts conditions and behaviours from one, in the order given. A behaviour that several
    rules name is applied once, when any of them holds. Raises UserError with the mistake's place.
    """
    whens: dict[str, list[When]] = {}
    for rule in rules:
        shape = SHAPE.fullmatch(rule)
        if shape is None:
            raise UserError(f"rule {rule!r}: expected `if CONDITION then BEHAVIOUR`")
        when = parse(rule, shape["condition"], shape.start("condition"), conditions)
        for item in ITEM.finditer(shape["behaviours"]):
            at = shape.start("behaviours") + item.start(1)
            name = resolve(rule, item[1].strip(), at, "behaviour", behaviours)
            whens.setdefault(name, []).append(when)
    gated = [behaviours[name].when(reduce(or_, any_of)) for name, any_of in whens.items()]
    return sum(gated, Program())


def parse(rule: str, text: str, start: int, conditions: Mapping[str, When]) -> When:
    """The combination that `text`, which begins at `start` of the rule, describes."""
    offset = start + len(text) - len(text.lstrip())
    # Python's own grammar has the words, the precedence and the positions
    source = re.sub(r"\s", " ", KEYWORD.sub(lambda word: word[0].lower(), text.strip()))
    try:
        tree = ast.parse(source, mode="eval").body
    except SyntaxError as error:
        raise mistake(rule, offset + (error.offset or 1) - 1, GRAMMAR) from None
    return build(rule, tree, offset, conditions)


def build(rule: str, node: ast.expr, offset: int, conditions: Mapping[str, When]) -> When:
    """The combination of a node of the condition's syntax tree."""
    at = offset + node.col_offset
    match node:
        case ast.BoolOp(op=op, values=values):
            parts = [build(rule, value, offset, conditions) for value in values]
            return reduce(and_ if isinstance(op, ast.And) else or_, parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return ~build(rule, operand, offset, conditions)
        case ast.Name(id=name):
            return conditions[resolve(rule, name, at, "condition", conditions)]
    raise mistake(rule, at, "expected a condition's name")


def resolve(rule: str, name: str, at: int, kind: str, there: Mapping[str, object]) -> str:
    """The full name of a condition or behaviour, which may be given by number (C1, B1)."""
    number = re.fullmatch(rf"{kind[0]}(\d+)", name, re.IGNORECASE)
    if name in there:
        return name
    if number and 1 <= int(number[1]) <= len(there):
        return list(there)[int(number[1]) - 1]
    raise mistake(rule, at, f"no {kind} {name!r}, there is {', '.join(there) or 'none'}")


def mistake(rule: str, at: int, what: str) -> UserError:
    """An error with the rule's text from the mistake on."""
    return UserError(f"rule {rule!r}, character {at + 1} (at {rule[at : at + 20]!r}): {what}")
