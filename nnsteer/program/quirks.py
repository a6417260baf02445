"""What the sources' code does where it differs from what they say: for reproducing published
numbers, and off unless called."""

from __future__ import annotations

from dataclasses import replace

from nnsteer.errors import UserError
from nnsteer.program.direction import AnyDirections, Direction, Directions, as_directions
from nnsteer.program.program import Program
from nnsteer.program.site import Place, Site
from nnsteer.program.span import GENERATED, LAST_PROMPT, Span


def cast_skew(directions: AnyDirections) -> Directions:
    """CAST's library reads what leaves block l, and writes and compares what enters it."""
    moved: dict[Place, Direction] = {}
    for direction in as_directions(directions).values():
        site = direction.site
        if not isinstance(site, Site) or site.stream != "block_out":
            limits = "CAST's skew is between block_out and block_in"
            raise UserError(f"{site}: {limits}; fit the direction at a block's output")
        entering = Site(site.layer, "block_in")
        moved[entering] = direction.moved(entering)
    return Directions(moved)


def llama3_before(program: Program) -> Program:
    """steering-llama3 `--toks before`, which under its cache edits every prompt token but the last,
    and every generated one."""
    spans = Span(None, -1), GENERATED
    return Program(tuple(replace(step, span=span) for step in program.steps for span in spans))


def llama3_after(program: Program) -> Program:
    """steering-llama3 `--toks after`, which under its cache edits the prompt's last token alone."""
    return Program(tuple(replace(step, span=LAST_PROMPT) for step in program.steps))
